"""Findings to an exit status: the same in every format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devmap.checking.settings import FailOn
    from devmap.findings.model import Finding

__all__ = ["exit_status"]


def exit_status(findings: Iterable[Finding], fail_on: FailOn = Severity.ERROR) -> int:
    """1 if a finding that no comment suppresses is at or above `fail_on`, else 0."""
    if fail_on == "never":
        return 0
    limit = Severity(fail_on).rank
    return int(any(finding.suppressed is None and finding.severity.rank <= limit for finding in findings))
