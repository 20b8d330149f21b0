"""DM102: a key that every config needs is absent."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM102",
    name="missing-key",
    severity=Severity.ERROR,
    summary="A key that every config needs is absent",
    why="`version` fixes what the other keys mean, and `model` says what is placed. There are no defaults "
    "for them.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
model: {manifest: example.manifest.yaml}
""",
    check=partial(fault_reports, code="DM102"),
    suppressible=False,
)
