"""Source texts and places in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = ["LineColumn", "Position", "Source"]

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, order=True)
class LineColumn:
    """A place in a text: line and column, both from 1, columns in code points."""

    line: int
    column: int


@dataclass(frozen=True)
class Source:
    """A file's name as the user gave it, and its text."""

    name: str
    text: str
    is_hidden: bool = False
    """Whether none of the text may be shown: the file lies outside the repository of the config that names
    it."""

    @cached_property
    def lines(self) -> tuple[str, ...]:
        """The lines without their ends; only LF, CR LF and CR end a line, as in YAML 1.2."""
        return tuple(_LINE_END.split(self.text))

    def line(self, number: int) -> str:
        """Return the text of a line counted from 1; empty past the end."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def place_at(self, offset: int) -> tuple[int, int]:
        """Line and column of the character at an offset."""
        line, start = 1, 0
        for match in _LINE_END.finditer(self.text, 0, offset):
            line, start = line + 1, match.end()
        return line, offset - start + 1

    def stretch(self, line: int, column: int, length: int = 1) -> Position:
        """Return a stretch of one line, held inside the text."""
        line = min(max(line, 1), len(self.lines))
        width = len(self.lines[line - 1])
        column = min(max(column, 1), width + 1)
        return Position(
            self, LineColumn(line, column), LineColumn(line, min(column + max(length, 0), width + 1))
        )


@dataclass(frozen=True, slots=True)
class Position:
    """A stretch of a source, from `start` up to but not including `end`."""

    source: Source
    start: LineColumn
    end: LineColumn

    @property
    def file(self) -> str:
        """The source's name."""
        return self.source.name

    def sort_key(self) -> tuple[str, int, int]:
        """File, then line, then column."""
        return (self.source.name, self.start.line, self.start.column)
