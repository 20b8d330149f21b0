"""DM110: two keys of a mapping name the same device."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM110",
    name="colliding-devices",
    severity=Severity.ERROR,
    summary="Two keys of a mapping name the same device",
    why="`0`, `'0'` and `cuda:0` are one device. Of two such keys one would win and the other would have "
    "no effect.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 'cuda:0': 1GB}
""",
    check=partial(fault_reports, code="DM110"),
    suppressible=False,
)
