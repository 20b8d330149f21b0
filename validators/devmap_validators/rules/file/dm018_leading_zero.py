"""DM018: a number has a leading zero."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM018",
    name="leading-zero",
    severity=Severity.ERROR,
    summary="A number has a leading zero",
    why="`010` is 8 to YAML 1.1 and 10 to YAML 1.2. What it means depends on the reader, so it is refused.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2000000000}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 02000000000}
""",
    check=partial(fault_reports, code="DM018"),
    suppressible=False,
)
