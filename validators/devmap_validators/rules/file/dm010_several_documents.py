"""DM010: the file holds more than one document."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM010",
    name="several-documents",
    severity=Severity.ERROR,
    summary="The file holds more than one document",
    why="Tools differ in which of several documents they read, and the rest is silently ignored. One file "
    "is one config.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
---
version: 1
""",
    check=partial(fault_reports, code="DM010"),
    suppressible=False,
)
