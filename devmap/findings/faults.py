"""What the reader and the models found wrong with a file.

As reports of the rules of families DM0xx and DM1xx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import Fault
    from devmap.findings.context import Context

__all__ = ["fault_report", "fault_reports"]


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
