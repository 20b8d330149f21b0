"""DM005: a tab indents a line."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM005",
    name="tab-indentation",
    severity=Severity.ERROR,
    summary="A tab indents a line",
    why="YAML forbids tabs there, and parsers differ in how they fail. Indent with blanks.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
  0: 2GB
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory:
\t0: 2GB
""",
    check=partial(fault_reports, code="DM005"),
    suppressible=False,
)
