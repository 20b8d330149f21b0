"""DM002: the file is not UTF-8."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM002",
    name="invalid-encoding",
    severity=Severity.ERROR,
    summary="The file is not UTF-8",
    why=(
        "A config is read the same way on every machine, so its encoding is fixed. A byte of another "
        "encoding would become "
        "another letter in a path or a module name."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="version: 1\nmodel: {manifest: caf\udce9.manifest.yaml}\n",
    check=partial(fault_reports, code="DM002"),
    suppressible=False,
)
