"""DM014: a mapping, a list or an alias stands as a key."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM014",
    name="key-not-text",
    severity=Severity.ERROR,
    summary="A mapping, a list or an alias stands as a key",
    why="Keys are names: text, or a number that stands for a device. Two devices with the same budget are "
    "two keys.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {[0, 1]: 2GB}
""",
    check=partial(fault_reports, code="DM014"),
    suppressible=False,
)
