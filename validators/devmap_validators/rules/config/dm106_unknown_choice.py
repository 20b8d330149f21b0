"""DM106: a word that is none of those its key may have."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM106",
    name="unknown-choice",
    severity=Severity.ERROR,
    summary="A word that is none of those its key may have",
    why="Each of these keys has a short list of words. The message shows it.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: inference
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
workload: infrence
""",
    check=partial(fault_reports, code="DM106"),
    suppressible=False,
)
