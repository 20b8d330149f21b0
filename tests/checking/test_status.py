"""The exit status: by severity, whatever the format."""

from __future__ import annotations

import pytest

from devmap.checking.status import exit_status
from devmap.findings.model import Finding, Severity


def finding(severity: Severity, *, suppressed: str | None = None) -> Finding:
    return Finding("DM201", "x", severity, "m", suppressed=suppressed)


@pytest.mark.parametrize(
    ("severity", "fail_on", "status"),
    [
        (Severity.ERROR, Severity.ERROR, 1),
        (Severity.WARNING, Severity.ERROR, 0),
        (Severity.WARNING, Severity.WARNING, 1),
        (Severity.NOTE, Severity.WARNING, 0),
        (Severity.NOTE, Severity.NOTE, 1),
        (Severity.ERROR, "never", 0),
    ],
)
def test_the_status_is_1_from_the_severity_on(severity: Severity, fail_on: Severity, status: int) -> None:
    assert exit_status([finding(severity)], fail_on) == status


def test_suppressed_findings_do_not_count() -> None:
    assert exit_status([finding(Severity.ERROR, suppressed="")]) == 0
    assert exit_status([]) == 0
