"""DM113: a config extends itself, directly or through its parents."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM113",
    name="circular-extends",
    severity=Severity.ERROR,
    summary="A config extends itself, directly or through its parents",
    why="Each config starts from its parent, so a circle has no beginning.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
extends: example.devmap.yaml
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM113"),
    suppressible=False,
)
