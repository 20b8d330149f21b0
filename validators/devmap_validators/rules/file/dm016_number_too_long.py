"""DM016: a number has more digits than any size or index."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM016",
    name="number-too-long",
    severity=Severity.ERROR,
    summary="A number has more digits than any size or index",
    why="It overflows, or it takes seconds to convert. A key was left out before it, or two numbers ran "
    "together.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20000000000000000000000000000000000000000000}
""",
    check=partial(fault_reports, code="DM016"),
    suppressible=False,
)
