"""The place of every node of a document, made into objects only when somebody asks for one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from devmap.config.yaml.source import LineColumn, Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.source import Source

__all__ = ["NodePosition", "ParserMark", "Positions", "Span", "locate", "position_of"]


class ParserMark(Protocol):
    """A place as the parser gives it: both from 0, columns in code points."""

    line: int
    column: int


Span: TypeAlias = tuple[ParserMark, ParserMark]
"""Start and end of an event."""


@dataclass(frozen=True, slots=True)
class NodePosition:
    """Where a node stands: its key (None for the root and for items of lists) and its value."""

    key: Position | None
    value: Position


class Positions(Mapping["DocumentPath", NodePosition]):
    """Node by path.

    Of a thousand nodes a run asks for one or two: the rest stay pairs of the parser's marks.
    """

    def __init__(self, source: Source, spans: dict[DocumentPath, tuple[Span | None, Span]]) -> None:
        self._source = source
        self._spans = spans

    def __getitem__(self, path: DocumentPath) -> NodePosition:
        key, value = self._spans[path]
        return NodePosition(
            None if key is None else position_of(key, self._source), position_of(value, self._source)
        )

    def __contains__(self, path: object) -> bool:
        return path in self._spans

    def __iter__(self) -> Iterator[DocumentPath]:
        return iter(self._spans)

    def __len__(self) -> int:
        return len(self._spans)


def position_of(span: Span, source: Source) -> Position:
    """Return the part of a span that lies on its first line.

    A block collection ends at the next token, often far below.
    """
    start, end = span
    line = start.line + 1
    if line > len(source.lines):  # a value that is left out at the end of the file
        line = len(source.lines)
        return source.stretch(line, len(source.line(line)) + 1, 0)
    text = source.line(line)
    first = min(start.column, len(text))
    last = min(end.column, len(text)) if end.line == start.line else len(text.rstrip())
    return Position(source, LineColumn(line, first + 1), LineColumn(line, max(last, first) + 1))


def locate(
    path: DocumentPath, positions: Mapping[DocumentPath, NodePosition], *, key: bool = False
) -> Position:
    """Return the place of a node, of its key if asked.

    Or of the key of the nearest node above that the file has.
    """
    wanted = path
    while wanted not in positions:
        wanted, key = wanted[:-1], True
    node = positions[wanted]
    return node.key if key and node.key is not None else node.value
