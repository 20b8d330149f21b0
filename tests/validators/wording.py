"""Findings as the lines of a golden file: every word that a user reads, and where it points."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devmap.findings.model import Finding


def as_lines(findings: Iterable[Finding]) -> str:
    """`line:column-line:column severity[code] message`.

    And below it the label, the help and the fix where there is one.

    Of DM401 only the place: its words are the planner's, and the planner's tests hold them.
    """
    lines = []
    for finding in findings:
        assert finding.position is not None
        start, end = finding.position.start, finding.position.end
        where = f"{start.line}:{start.column}-{end.line}:{end.column}"
        if finding.code == "DM401":
            lines.append(f"{where} {finding.severity}[{finding.code}]")
            continue
        lines.append(f"{where} {finding.severity}[{finding.code}] {finding.message}")
        more = {
            "label": finding.label,
            "help": finding.help,
            "fix": finding.edit.description if finding.edit is not None else "",
        }
        lines += [f"    {name}: {words}" for name, words in more.items() if words]
    return "".join(f"{line}\n" for line in lines)
