"""The one YAML reader: text in, plain data beside the position of every node, faults in a list.

PyYAML supplies events only. Everything that YAML 1.1 reads in its own way (`no`, `010`, `8:16`, dates,
duplicate keys, tags) is decided here, after the core schema of YAML 1.2: keys are text, scalars are null,
true, false, decimal numbers or strings. Work is bounded before it is done: size, depth, nodes and alias
expansion have limits, checked while events arrive, so that neither 100,000 brackets (which kill libyaml's
composer) nor an alias bomb cost more than a look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from devmap.config.values.words import shown
from devmap.config.yaml.decoding import FORBIDDEN, Limits, character_name, decode
from devmap.config.yaml.events import (
    Anchor,
    CollectionEvent,
    DocumentStartEvent,
    NodeEvent,
    OpenMapping,
    OpenSequence,
    ParserEvent,
    Plain,
    ScalarEvent,
    TaggedEvent,
)
from devmap.config.yaml.faults import DocumentPath, Edit, Fault
from devmap.config.yaml.positions import NodePosition, Positions, Span, position_of
from devmap.config.yaml.scalars import LONGEST_NUMBER, has_leading_zero, resolve
from devmap.config.yaml.source import LineColumn, Position, Source
from devmap.config.yaml.syntax import syntax_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Limits", "NodePosition", "ParsedYaml", "Plain", "quoted_stretches", "read_yaml"]


@dataclass(frozen=True, slots=True)
class ParsedYaml:
    """One file, read: `data` is None where `faults` say why."""

    source: Source
    data: dict[str, Plain] | None
    positions: Mapping[DocumentPath, NodePosition]
    faults: tuple[Fault, ...]


def read_yaml(content: bytes, name: str, *, limits: Limits | None = None, hidden: bool = False) -> ParsedYaml:
    """Read one YAML document whose root is a mapping.

    Never raises for what the file holds: every problem is a fault with line and column. Nothing of a
    `hidden` text is shown by what reports them.
    """
    limits = limits or Limits()
    source, fault = decode(content, name, limits, hidden=hidden)
    if fault is not None:
        return ParsedYaml(source, None, {}, (fault,))
    builder = _DocumentBuilder(source, limits)
    try:
        data = builder.build()
    except _Stop as stop:
        return ParsedYaml(source, None, {}, (*builder.faults, stop.fault))
    except yaml.YAMLError as error:
        return ParsedYaml(source, None, {}, (*builder.faults, syntax_fault(error, source)))
    return ParsedYaml(source, data, Positions(source, builder.spans), tuple(builder.faults))


def quoted_stretches(
    source: Source, *, limits: Limits | None = None
) -> Iterator[tuple[LineColumn, LineColumn]]:
    """Yield where quoted and block scalars stand: a `#` in them begins no comment.

    Ends where the text stops being YAML.
    """
    depth_left = (limits or Limits()).depth
    try:
        for event in yaml.parse(source.text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth_left -= 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth_left += 1
            elif isinstance(event, yaml.ScalarEvent) and event.style:
                start, end = event.start_mark, event.end_mark
                assert start is not None
                assert end is not None
                yield LineColumn(start.line + 1, start.column + 1), LineColumn(end.line + 1, end.column + 1)
            if depth_left < 0:
                return
    except yaml.YAMLError:
        return


class _Stop(Exception):  # noqa: N818 - control flow inside this module, never seen outside
    """Reading cannot go on."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class _DocumentBuilder:
    """Builds data, spans and faults from events; a class because these three grow together."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.spans: dict[DocumentPath, tuple[Span | None, Span]] = {}
        self.faults: list[Fault] = []
        self._anchors: dict[str, Anchor] = {}
        self._stack: list[OpenMapping | OpenSequence] = []
        self._nodes = 0
        self._root: Plain = None
        self._root_is_blank = True
        self._documents = 0

    def build(self) -> dict[str, Plain] | None:
        """Take every event; the root's mapping, or None with a fault.

        Raises:
            _Stop: where reading on makes no sense or costs too much.
            yaml.YAMLError: where the text is not YAML.
        """
        take: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open,
            yaml.SequenceStartEvent: self._open,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._start_document,
        }
        for event in yaml.parse(self.source.text, Loader=yaml.CSafeLoader):
            handler = take.get(type(event))
            if handler is not None:
                handler(event)
        if isinstance(self._root, dict):
            return self._root
        self._refuse_root()
        return None

    def _refuse_root(self) -> None:
        if self._documents == 0 or (self._root is None and self._root_is_blank):
            where = self.source.stretch(1, 1, 0)
            self._add(
                Fault("DM011", "the file is empty", where, help="'devmap init' writes a config to start from")
            )
            return
        found = "a list" if isinstance(self._root, list) else f"the value {shown(self._root)}"
        where, hint = (
            position_of(self.spans[()][1], self.source),
            "write 'key: value' lines, with a space after each colon",
        )
        column = self.source.line(where.start.line).find("\u00a0") + 1
        if column:
            where = self.source.stretch(where.start.line, column)
            hint = "a no-break space (U+00A0) stands here, which YAML reads as a letter: use a plain space"
        self._add(Fault("DM012", f"expected keys at the top of the file, found {found}", where, help=hint))

    def _add(self, fault: Fault) -> None:
        if len(self.faults) >= _MOST_FAULTS:
            raise _Stop(fault)
        self.faults.append(fault)

    def _start_document(self, event: DocumentStartEvent) -> None:
        self._documents += 1
        position = self._at(event)
        if self._documents > 1:
            raise _Stop(
                Fault(
                    "DM010",
                    "a second document starts here; a config is one document",
                    position,
                    help="split the file",
                )
            )
        if event.version or event.tags:
            line = next(
                (number for number, text in enumerate(self.source.lines, 1) if text.startswith("%")),
                position.start.line,
            )
            where = self.source.stretch(line, 1, len(self.source.line(line).rstrip()))
            self._add(Fault("DM015", "directives such as %YAML are not read", where, help="remove the line"))

    def _open(self, event: CollectionEvent) -> None:
        self._count(1, event)
        if len(self._stack) >= self.limits.depth:
            raise _Stop(
                Fault(
                    "DM008",
                    f"lists and mappings are nested deeper than {self.limits.depth} levels",
                    self._at(event, width=1),
                )
            )
        if event.tag is not None:
            self._refuse_tag(event)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        parent = self._stack[-1] if self._stack else None
        hidden = False
        if isinstance(parent, OpenMapping):
            if parent.key is None:
                raise _Stop(self._collection_as_key(event, is_mapping=is_mapping))
            hidden = parent.hidden or parent.merging or parent.again
        elif parent is not None:
            hidden = parent.hidden
        path = self._next_path()
        node = (
            OpenMapping({}, path, event, self._nodes, hidden)
            if is_mapping
            else OpenSequence([], path, event, self._nodes, hidden)
        )
        self._stack.append(node)

    def _collection_as_key(self, event: CollectionEvent, *, is_mapping: bool) -> Fault:
        if (
            is_mapping
            and event.flow_style
            and self.source.line(event.start_mark.line + 1)[: event.start_mark.column].endswith("{")
        ):
            hint = "a config is plain YAML: use 'profiles', or put quotes around it if it is text"
            line, column = event.start_mark.line + 1, event.start_mark.column
            return Fault(
                "DM004",
                "template braces are not read",
                self.source.stretch(line, column, 2),
                self._stack[-1].path,
                help=hint,
            )
        found = "a mapping" if is_mapping else "a list"
        return Fault(
            "DM014",
            f"{found} cannot be a key",
            self._at(event, width=1),
            self._stack[-1].path,
            help="put quotes around it if it is text",
        )

    def _close(self, event: ParserEvent) -> None:
        node = self._stack.pop()
        if isinstance(node, OpenMapping) and node.merges:
            self._merge(node)
        anchor = node.event.anchor
        if anchor:
            self._anchors[anchor] = Anchor(node.value, self._nodes - node.nodes_before + 1)
        self._put(node.value, (node.event.start_mark, event.end_mark))

    def _scalar(self, event: ScalarEvent) -> None:
        self._nodes += 1
        if self._nodes > self.limits.nodes:
            self._count(0, event)
        if event.tag is not None:
            self._refuse_tag(event)
        if event.style == '"' and FORBIDDEN.search(event.value):
            self._refuse_characters(event)
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, OpenMapping) and parent.key is None:
            self._key(parent, event)
            return
        value: Plain = event.value
        if not event.style:
            value = self._resolved(event)
            self._root_is_blank = event.value == ""
        if event.anchor:
            self._anchors[event.anchor] = Anchor(value, 1)
        self._put(value, (event.start_mark, event.end_mark))

    def _key(self, parent: OpenMapping, event: ScalarEvent) -> None:
        key: str = event.value
        if event.anchor:
            self._anchors[event.anchor] = Anchor(key, 1)
        parent.key, parent.key_span = key, (event.start_mark, event.end_mark)
        if key == "<<" and not event.style:
            parent.merging = True
        elif key in parent.value:
            parent.again = True
            self._refuse_duplicate(parent, event)
        elif not key and not event.style:
            hint = 'write "" for the whole model in a device_map, else the key\'s name'
            self._add(
                Fault("DM014", "a value without a key", self._at(event, width=1), parent.path, help=hint)
            )

    def _refuse_duplicate(self, parent: OpenMapping, event: ScalarEvent) -> None:
        path = (*parent.path, event.value)
        first = self.spans.get(path)
        where = f"; the first is at line {first[0][0].line + 1}" if first and first[0] else ""
        message = f"the key {shown(event.value)} appears twice in one mapping{where}"
        self._add(Fault("DM006", message, self._at(event), path, help="keep one of them"))

    def _alias(self, event: NodeEvent) -> None:
        name = event.anchor
        anchor = self._anchors.get(name or "")
        if any(node.event.anchor == name for node in self._stack):
            raise _Stop(
                Fault(
                    "DM013",
                    f"'*{name}' refers to the node that contains it",
                    self._at(event),
                    help="write the value out",
                )
            )
        if anchor is None:
            hint = f"put quotes around it if it is a pattern: '*{name}'"
            edit = Edit(self._at(event), f"'*{name}'", "quote it")
            raise _Stop(
                Fault(
                    "DM013",
                    f"no anchor is called '&{name}' before '*{name}'",
                    self._at(event),
                    help=hint,
                    edit=edit,
                )
            )
        self._count(anchor.nodes, event)
        parent = self._stack[-1] if self._stack else None
        if isinstance(parent, OpenMapping) and parent.key is None:
            raise _Stop(
                Fault(
                    "DM014",
                    "an alias cannot be a key",
                    self._at(event),
                    help="put quotes around it if it is text",
                )
            )
        self._put(anchor.value, (event.start_mark, event.end_mark))

    def _put(self, value: Plain, span: Span) -> None:
        """Put a finished value into the collection that is open, or make it the root."""
        if not self._stack:
            self._root = value
            self.spans[()] = (None, span)
            return
        parent = self._stack[-1]
        if isinstance(parent, OpenSequence):
            if not parent.hidden:
                self.spans[*parent.path, len(parent.value)] = (None, span)
            parent.value.append(value)
            return
        assert parent.key is not None
        if parent.merging:
            parent.merges.append((value, span))
        elif not parent.again:  # of two equal keys the first stays, so that later findings point at one place
            parent.value[parent.key] = value
            if not parent.hidden:
                self.spans[*parent.path, parent.key] = (parent.key_span, span)
        parent.key, parent.merging, parent.again = None, False, False

    def _merge(self, node: OpenMapping) -> None:
        """Take over the keys of `<<`: what stands in the mapping itself wins, then the earlier of several."""
        for value, span in node.merges:
            for parent in value if isinstance(value, list) else [value]:
                if not isinstance(parent, dict):
                    message = f"'<<' merges mappings, found {shown(parent)}"
                    self._add(
                        Fault(
                            "DM017",
                            message,
                            position_of(span, self.source),
                            node.path,
                            help="name a mapping: '<<: *name'",
                        )
                    )
                    continue
                self._count(len(parent), span)
                for key, item in parent.items():
                    if key not in node.value:
                        node.value[key] = item
                        if not node.hidden:
                            self.spans[*node.path, key] = (span, span)

    def _next_path(self) -> DocumentPath:
        """Return the path of the node that comes next; of the mapping where its key is not known."""
        if not self._stack:
            return ()
        parent = self._stack[-1]
        if isinstance(parent, OpenSequence):
            return (*parent.path, len(parent.value))
        return parent.path if parent.key is None else (*parent.path, parent.key)

    def _count(self, nodes: int, where: ParserEvent | Span) -> None:
        self._nodes += nodes
        if self._nodes > self.limits.nodes:
            position = (
                position_of(where, self.source) if isinstance(where, tuple) else self._at(where, width=1)
            )
            message = (
                f"the file has more than {self.limits.nodes:,} nodes once aliases and merges are expanded"
            )
            raise _Stop(
                Fault(
                    "DM009",
                    message,
                    position,
                    help="if it really is a config, raise 'nodes' in [tool.devmap.limits]",
                )
            )

    def _refuse_tag(self, event: TaggedEvent) -> None:
        tag = shown(str(event.tag).replace("tag:yaml.org,2002:", "!!"))
        start = event.start_mark
        text = self.source.line(start.line + 1)
        written = _TAG.search(text, start.column)
        position = (
            self.source.stretch(start.line + 1, written.start() + 1, len(written[0]))
            if written
            else self._at(event)
        )
        hint = "remove the tag: values have their plain type"
        self._add(Fault("DM007", f"the tag {tag} is not read", position, self._next_path(), help=hint))

    def _refuse_characters(self, event: ScalarEvent) -> None:
        match = FORBIDDEN.search(event.value)
        assert match is not None
        message = f"the escaped character {character_name(match[0])} is not allowed in a config"
        self._add(Fault("DM003", message, self._at(event), self._next_path(), help="remove it"))

    def _resolved(self, event: ScalarEvent) -> str | int | float | bool | None:
        """Return a plain scalar's value; text that looks like a number and cannot be one has a fault."""
        text: str = event.value
        try:
            value = resolve(text)
        except OverflowError:
            message = f"the number has {len(text):,} digits"
            hint = f"a number has at most {LONGEST_NUMBER} digits; put quotes around it if it is text"
            self._add(Fault("DM016", message, self._at(event), self._next_path(), help=hint))
            return 0
        if value is text and has_leading_zero(text):
            sign, digits = ("-" if text[0] == "-" else ""), text.lstrip("+-0") or "0"
            position = self._at(event)
            message = f"{shown(text)} has a leading zero: YAML 1.1 reads it as octal, YAML 1.2 as decimal"
            hint = f"write {sign}{digits}, or put quotes around it if it is text"
            edit = Edit(position, f"{sign}{digits}", f"write {sign}{digits}")
            self._add(Fault("DM018", message, position, self._next_path(), help=hint, edit=edit))
        return value

    def _at(self, event: ParserEvent, *, width: int | None = None) -> Position:
        """Return where an event stands, or the first `width` characters of that."""
        if width is not None:
            return self.source.stretch(event.start_mark.line + 1, event.start_mark.column + 1, width)
        return position_of((event.start_mark, event.end_mark), self.source)


_MOST_FAULTS = 100
"""Reading stops there: nobody mends more in one go, and a hostile file shall not fill the memory."""

_TAG = re.compile(r"![^\s,\[\]{}]*")
