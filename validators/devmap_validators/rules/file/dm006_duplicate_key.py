"""DM006: a key comes twice in one mapping."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM006",
    name="duplicate-key",
    severity=Severity.ERROR,
    summary="A key comes twice in one mapping",
    why="YAML's libraries keep the last of two equal keys and say nothing, so that half of what somebody "
    "wrote has no effect.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 0: 1GB}
""",
    check=partial(fault_reports, code="DM006"),
    suppressible=False,
)
