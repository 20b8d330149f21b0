"""Findings for people: message, place, the source line with a caret, help."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import escaped
from devmap.findings.model import Severity
from devmap.report.formats.snippet import snippet
from devmap.report.wrapping import wrap_words

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position
    from devmap.findings.model import Finding
    from devmap.report.formats.results import Results

__all__ = ["render"]

_NARROWEST = 40
_JOINED = "\u00a0"
_COLORS = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.NOTE: "1;36"}
_BOLD, _BLUE = "1", "1;34"


def render(results: Results) -> str:
    """Return every open finding with its source line, a blank line between two, and the summary."""
    blocks = ["\n".join(_lines(finding, results)) for finding in results.open]
    return "\n\n".join(blocks) + ("\n" if blocks else "") + results.summary() + "\n"


def _lines(finding: Finding, results: Results) -> list[str]:
    color = _COLORS[finding.severity]
    title = f"{finding.severity.value}[{finding.code} {finding.name}]"
    # The title holds no blank once its parts are joined, so that the first line begins with all of it.
    first, *more = _fitting(f"{title.replace(' ', _JOINED)}: {finding.message}", results, hanging=4)
    lines = [_paint(title, color, results) + _paint(first[len(title) :], _BOLD, results)]
    lines += [_paint(line, _BOLD, results) for line in more]
    margin = 1
    if finding.position is not None:
        margin = len(str(finding.position.start.line))
        lines += _source_lines(finding.position, finding.label, color, results)
    elif finding.label:
        lines.append(f"   {finding.label}")
    equals = _paint("=", _BLUE, results)
    first, *more = (finding.help or f"devmap explain {finding.code}").splitlines()
    indent = " " * (margin + 10)
    first, *rest = _fitting(f"{indent}{first}", results)
    lines.append(f"{' ' * (margin + 2)}{equals} help: {first.lstrip()}")
    lines += rest
    for line in more:
        lines += [f"{indent}{_no_command(part.lstrip())}" for part in _fitting(f"{indent}{line}", results)]
    return lines


def _fitting(line: str, results: Results, *, hanging: int = 0) -> list[str]:
    """Return a line, broken between words where results are to fit a terminal."""
    return wrap_words(line, results.width, hanging=hanging) if results.wraps else [line]


def _no_command(line: str) -> str:
    """Return a line that a log's reader cannot take for a command.

    GitHub obeys `::error::` behind blanks too.
    """
    return line.replace("::", ":\\x3a", 1) if line.lstrip().startswith("::") else line


def _source_lines(position: Position, label: str, color: str, results: Results) -> list[str]:
    number = str(position.start.line)
    margin = " " * len(number)
    bar = _paint("|", _BLUE, results)
    arrow = _paint("-->", _BLUE, results)
    lines = [f"{margin} {arrow} {escaped(position.file)}:{position.start.line}:{position.start.column}"]
    text = position.source.line(position.start.line)
    if position.source.is_hidden or (not text and not position.source.text):
        return lines
    end = position.end.column if position.end.line == position.start.line else len(text) + 1
    shown, before, length = snippet(
        text, position.start.column, end, width=max(results.width - len(number) - 4, _NARROWEST)
    )
    lines += [f"{margin}  {bar}", f" {_paint(number, _BLUE, results)} {bar} {shown}".rstrip()]
    room = results.width - len(number) - 4
    if results.wraps and label and before + length + 1 + len(label) > room:
        # Beside the caret it would not fit: it goes below, as far to the left as it needs.
        lines.append(f"{margin}  {bar} {' ' * before}{_paint('^' * length, color, results)}")
        indent = " " * max(0, min(before, room - len(label)))
        below = wrap_words(f"{indent}{label}", room)
        return lines + [f"{margin}  {bar} {_paint(line, color, results)}" for line in below]
    carets = _paint("^" * length + (f" {label}" if label else ""), color, results)
    lines.append(f"{margin}  {bar} {' ' * before}{carets}")
    return lines


def _paint(text: str, color: str, results: Results) -> str:
    return f"\x1b[{color}m{text}\x1b[0m" if results.color else text
