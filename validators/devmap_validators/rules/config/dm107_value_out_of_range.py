"""DM107: a number or text outside what its key allows."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM107",
    name="value-out-of-range",
    severity=Severity.ERROR,
    summary="A number or text outside what its key allows",
    why="A batch of zero sequences, a negative rate or a factory without a colon has no meaning.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: {kind: inference, batch_size: 1}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: {kind: inference, batch_size: 0}
""",
    check=partial(fault_reports, code="DM107"),
    suppressible=False,
)
