"""What the reader works with: the parser's events as they are, and collections whose end has not come yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from devmap.config.yaml.positions import ParserMark, Span

__all__ = [
    "Anchor",
    "CollectionEvent",
    "DocumentStartEvent",
    "NodeEvent",
    "OpenMapping",
    "OpenSequence",
    "ParserEvent",
    "Plain",
    "ScalarEvent",
    "TaggedEvent",
]

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"
"""What a node of a document is as data."""


class ParserEvent(Protocol):
    """What libyaml's events have in truth; the stubs of PyYAML allow that marks are missing."""

    start_mark: ParserMark
    end_mark: ParserMark


class NodeEvent(ParserEvent, Protocol):
    """An event that may name an anchor."""

    anchor: str | None


class TaggedEvent(NodeEvent, Protocol):
    """An event that may have a tag."""

    tag: str | None


class ScalarEvent(TaggedEvent, Protocol):
    """A scalar; no style means that it is plain."""

    value: str
    style: str | None


class CollectionEvent(TaggedEvent, Protocol):
    """The start of a mapping or a list."""

    flow_style: bool


class DocumentStartEvent(ParserEvent, Protocol):
    """The start of a document, with what its directives say."""

    version: object
    tags: object


@dataclass(slots=True)
class Anchor:
    """A finished node that has a name, and how many nodes it stands for."""

    value: Plain
    nodes: int


@dataclass(slots=True)
class OpenMapping:
    """A mapping whose end has not come yet."""

    value: dict[str, Plain]
    path: DocumentPath
    event: CollectionEvent
    nodes_before: int
    hidden: bool
    """Whether it is the value of a `<<` or of a key that came before: what it holds has no place in the
    document."""
    key: str | None = None
    key_span: Span | None = None
    merges: list[tuple[Plain, Span]] = field(default_factory=list)
    merging: bool = False
    """Whether the open key is `<<`."""
    again: bool = False
    """Whether the open key came before."""


@dataclass(slots=True)
class OpenSequence:
    """A list whose end has not come yet."""

    value: list[Plain]
    path: DocumentPath
    event: CollectionEvent
    nodes_before: int
    hidden: bool
