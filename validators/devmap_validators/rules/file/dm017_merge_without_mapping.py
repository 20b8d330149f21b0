"""DM017: `<<` merges something that is no mapping."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM017",
    name="merge-without-mapping",
    severity=Severity.ERROR,
    summary="`<<` merges something that is no mapping",
    why="A merge copies the keys of another mapping. A value or a list of values has none.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  <<: {0: 2GB}
  1: 2GB
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  <<: 2GB
""",
    check=partial(fault_reports, code="DM017"),
    suppressible=False,
)
