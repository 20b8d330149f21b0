"""DM011: the file is empty or holds only comments."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM011",
    name="empty-file",
    severity=Severity.ERROR,
    summary="The file is empty or holds only comments",
    why="An empty config places nothing. Mostly it is a file that was not saved, or a merge that went wrong.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
# to do
""",
    check=partial(fault_reports, code="DM011"),
    suppressible=False,
)
