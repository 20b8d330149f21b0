"""Findings as GitHub's workflow commands, which it shows beside the changed lines.

GitHub shows ten errors, ten warnings and ten notices of a step and drops the rest in silence; what it would
drop is counted in one line instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import escaped
from devmap.findings.model import Severity
from devmap.report.formats.results import file_of

if TYPE_CHECKING:
    from devmap.findings.model import Finding
    from devmap.report.formats.results import Results

__all__ = ["render"]

_MOST = 10
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def render(results: Results) -> str:
    """Errors first, then warnings, then notes; then how many more there are."""
    lines = [_command(finding) for severity in Severity for finding in results.of(severity)[:_MOST]]
    left = len(results.open) - len(lines)
    if left:
        lines.append(f"{left:,} more; run devmap validate to see all of them")
    return "".join(f"{line}\n" for line in lines)


def _command(finding: Finding) -> str:
    properties: dict[str, str] = {}
    if finding.position is not None:
        start, end = finding.position.start, finding.position.end
        properties = {
            "file": escaped(file_of(finding)),
            "line": str(start.line),
            "endLine": str(end.line),
            "col": str(start.column),
        }
        properties["endColumn"] = str(max(end.column, start.column))
    properties["title"] = f"{finding.code} {finding.name}"
    text = "\n".join(part for part in (finding.message, finding.label, finding.help) if part)
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{_COMMANDS[finding.severity]} {written}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
