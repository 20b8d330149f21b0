"""Safe edits applied: which of them, to which text, and whether what comes out is better.

Pure: findings and bytes in, bytes out. An edit is kept only if the checks, run again, say nothing new, but
for what could not be seen while the config could not be read that far.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.regular_files import real_path
from devmap.config.yaml.source import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from devmap.config.yaml.faults import Edit
    from devmap.config.yaml.source import LineColumn
    from devmap.findings.context import Context
    from devmap.findings.model import Finding, Rule

__all__ = ["Checked", "Reached", "apply_edits", "edited_file", "fixable", "introduces", "reached_by"]

_BOM = b"\xef\xbb\xbf"


class Reached(enum.IntEnum):
    """How far the checks of a config came: what lies behind is unknown, not right."""

    TEXT = 0
    SHAPE = 1
    MODEL = 2
    PLAN = 3


@dataclass(frozen=True, slots=True)
class Checked:
    """One config, checked."""

    file: str
    findings: tuple[Finding, ...]
    reached: Reached
    sources: tuple[str, ...]
    """The files that were read for it: itself and its parents, as they were named."""
    brought: tuple[Rule, ...] = ()
    """The rules that it brings along: those of the policies that it names."""


def reached_by(context: Context) -> Reached:
    """Return how far the checks of a config come that stands in this context."""
    if context.document.data is None:
        return Reached.TEXT
    if context.document.config is None:
        return Reached.SHAPE
    return Reached.MODEL if context.plan is None and context.plan_error is None else Reached.PLAN


def edited_file(finding: Finding) -> Path | None:
    """Return the file that a finding's edit changes, resolved.

    None where there is no edit or a comment allows the finding.
    """
    if finding.edit is None or finding.suppressed is not None:
        return None
    return real_path(finding.edit.position.file)


def fixable(findings: Iterable[Finding], file: Path) -> tuple[Finding, ...]:
    """Return the findings whose edits change `file`, in order of place.

    Of edits that overlap the first, of equal ones one.
    """
    mine = [finding for finding in findings if edited_file(finding) == file]
    chosen: list[Finding] = []
    for finding in sorted(mine, key=lambda finding: (_span(finding), finding.code)):
        start = _span(finding)[0]
        if not chosen or (start >= _span(chosen[-1])[1] and start > _span(chosen[-1])[0]):
            chosen.append(finding)
    return tuple(chosen)


def apply_edits(content: bytes, edits: Iterable[Edit]) -> bytes:
    """Return a file's bytes with edits applied that do not overlap.

    Every other byte, a byte order mark too, stays as it is. A file that is not UTF-8 stays as it is whole:
    places in it are those of its text with other characters for what has none.
    """
    body = content.removeprefix(_BOM)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return content
    starts = _line_starts(text)
    for edit in sorted(edits, key=lambda edit: edit.position.start, reverse=True):
        first, last = (
            starts[place.line - 1] + place.column - 1 for place in (edit.position.start, edit.position.end)
        )
        text = f"{text[:first]}{edit.replacement}{text[last:]}"
    return content[: len(content) - len(body)] + text.encode()


def introduces(fixes: Sequence[Finding], before: Checked, after: Checked) -> tuple[Finding, ...]:
    """Return what the checks say of a config after `fixes` that they did not say before.

    And could have said.
    """
    removed = _removed_lines(fixes)
    known = {(*_file(finding), finding.code, _line(finding)) for finding in before.findings}
    return tuple(
        finding
        for finding in after.findings
        if (*_file(finding), finding.code, _line_before(finding, removed)) not in known
        and not _was_hidden(finding, fixes, before.reached)
    )


def _span(finding: Finding) -> tuple[LineColumn, LineColumn]:
    assert finding.edit is not None
    return finding.edit.position.start, finding.edit.position.end


def _line_starts(text: str) -> list[int]:
    """Return the offset of each line's first character; lines end as in `Source.lines`."""
    starts, offset = [0], 0
    for line in Source("", text).lines[:-1]:
        offset += len(line)
        offset += 2 if text[offset : offset + 2] == "\r\n" else 1
        starts.append(offset)
    return starts


def _file(finding: Finding) -> tuple[Path | None]:
    return (real_path(finding.position.file) if finding.position is not None else None,)


def _line(finding: Finding) -> int:
    return finding.position.start.line if finding.position is not None else 0


def _removed_lines(fixes: Iterable[Finding]) -> Mapping[Path | None, Collection[int]]:
    """Return the lines that edits take away whole, by file."""
    removed: dict[Path | None, set[int]] = {}
    for finding in fixes:
        start, end = _span(finding)
        if end.line > start.line:
            removed.setdefault(edited_file(finding), set()).update(range(start.line, end.line))
    return removed


def _line_before(finding: Finding, removed: Mapping[Path | None, Collection[int]]) -> int:
    """Return the line on which a finding would have stood before lines were taken away."""
    line = _line(finding)
    for gone in sorted(removed.get(*_file(finding), ())):
        line += gone <= line
    return line


def _was_hidden(finding: Finding, fixes: Iterable[Finding], reached: Reached) -> bool:
    """Return whether a finding was there before and could not be seen: the checks had stopped before it."""
    stage = _stage(finding.code)
    if stage > reached:
        return True
    if stage is Reached.TEXT is reached:  # the parser stops at the first fault
        return any(finding.position is not None and finding.position.start >= _span(fix)[0] for fix in fixes)
    return stage is Reached.SHAPE is reached and any(_is_below_renamed(finding, fix) for fix in fixes)


def _is_below_renamed(finding: Finding, fix: Finding) -> bool:
    """Return whether a finding is about the value of a key that had another name.

    An unknown key hides its value.
    """
    assert fix.edit is not None
    renamed = (*fix.path[:-1], fix.edit.replacement.strip("'\""))
    inside = fix.code == "DM101" and finding.path[: len(renamed)] == renamed
    return inside and (finding.position is None or finding.position.start != _span(fix)[0])


def _stage(code: str) -> Reached:
    """Return how far the checks have to come for a rule to say anything."""
    if code in {"DM020", "DM021"}:  # files of the model
        return Reached.MODEL
    if code.startswith("DM0"):
        return Reached.TEXT
    if code.startswith("DM1"):
        return Reached.SHAPE
    return Reached.MODEL if code.startswith(("DM2", "DM3", "DM9")) else Reached.PLAN
