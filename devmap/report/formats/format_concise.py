"""Findings one a line, as compilers and editors know them: `file:line:col: error[DM201] message`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import escaped

if TYPE_CHECKING:
    from devmap.findings.model import Finding
    from devmap.report.formats.results import Results

__all__ = ["render"]


def render(results: Results) -> str:
    """Return every open finding in a line; nothing where there is none."""
    return "".join(
        f"{_place(finding)}{finding.severity.value}[{finding.code}] {_sentence(finding)}\n"
        for finding in results.open
    )


def _place(finding: Finding) -> str:
    position = finding.position
    return f"{escaped(position.file)}:{position.start.line}:{position.start.column}: " if position else ""


def _sentence(finding: Finding) -> str:
    text = f"{finding.message} ({finding.label})" if finding.label else finding.message
    return " ".join(text.split())
