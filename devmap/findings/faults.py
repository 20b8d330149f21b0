"""What the reader and the models found wrong with a file.

As reports of the rules of families DM0xx and DM1xx, and as those rules.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import Fault
    from devmap.findings.context import Context

__all__ = ["fault_report", "fault_reports", "relayed"]


def fault_reports(context: Context, code: str) -> Iterator[Report]:
    """Return the document's faults of one code.

    A rule of DM0xx or DM1xx has this as its check, with its own code.
    """
    return (fault_report(fault) for fault in context.document.faults if fault.code == code)


def fault_report(fault: Fault) -> Report:
    """Return a fault as a rule would say it; it keeps the place that the reader gave it."""
    return Report(
        fault.message,
        fault.path,
        help=fault.help,
        label=fault.label,
        edit=fault.edit,
        position=fault.position,
        severity=Severity(fault.severity),
    )


def relayed(code: str, name: str, summary: str, *, why: str, good: str, bad: str) -> Rule:
    """Return the rule that reports a document's faults of this code, where and as the reader saw them.

    It is an error that no comment suppresses: a config that cannot be read to its end is never known to be
    right.
    """
    return Rule(
        code=code,
        name=name,
        severity=Severity.ERROR,
        summary=summary,
        why=why,
        good=good,
        bad=bad,
        check=partial(fault_reports, code=code),
        suppressible=False,
    )
