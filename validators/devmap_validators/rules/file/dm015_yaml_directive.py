"""DM015: the file begins with `%YAML` or `%TAG`."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM015",
    name="yaml-directive",
    severity=Severity.ERROR,
    summary="The file begins with `%YAML` or `%TAG`",
    why=(
        "The reader follows the core schema of YAML 1.2 whatever a directive says, so one that asks for "
        "something else would mislead."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
%YAML 1.1
---
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM015"),
    suppressible=False,
)
