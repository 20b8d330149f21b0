"""The one YAML reader: text in, plain data beside the position of every node, faults in a list.

PyYAML supplies events only. Everything that YAML 1.1 reads in its own way (`no`, `010`, `8:16`, dates, duplicate keys,
tags) is decided here, after the core schema of YAML 1.2: keys are text, scalars are null, true, false, decimal numbers or
strings. Work is bounded before it is done: size, depth, nodes and alias expansion have limits, checked while events arrive,
so that neither 100,000 brackets (which kill libyaml's composer) nor an alias bomb cost more than a look.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import yaml

from devmap.config.faults import DocumentPath, Edit, Fault
from devmap.config.quoting import shown
from devmap.config.source import Place, Position, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Limits", "NodePosition", "ParsedYaml", "Plain", "read_yaml"]

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. The defaults are far above any real config."""

    size_bytes: int = 1 << 20
    depth: int = 64
    nodes: int = 100_000
    """Nodes after aliases and merges are expanded."""


@dataclass(frozen=True, slots=True)
class NodePosition:
    """Where a node stands: its key (None for the root and for items of lists) and its value."""

    key: Position | None
    value: Position


@dataclass(frozen=True, slots=True)
class ParsedYaml:
    """One file, read: `data` is None where `faults` say why."""

    source: Source
    data: dict[str, Plain] | None
    positions: Mapping[DocumentPath, NodePosition]
    faults: tuple[Fault, ...]


def read_yaml(content: bytes, name: str, *, limits: Limits | None = None) -> ParsedYaml:
    """Read one YAML document whose root is a mapping.

    Never raises for what the file holds: every problem is a fault with line and column.
    """
    limits = limits or Limits()
    source, fault = _decode(content, name, limits)
    if fault is not None:
        return ParsedYaml(source, None, {}, (fault,))
    builder = _Builder(source, limits)
    try:
        data = builder.build()
    except _Stop as stop:
        return ParsedYaml(source, None, {}, (*builder.faults, stop.fault))
    return ParsedYaml(source, data, builder.positions, tuple(builder.faults))


class _Stop(Exception):  # noqa: N818 - control flow inside this module, never seen outside
    """Reading cannot go on."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


# --- text -------------------------------------------------------------------------------------------------------------

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|[\u2028\u2029]")
_LINE_END = re.compile(r"\r\n|\r|\n")


def _decode(content: bytes, name: str, limits: Limits) -> tuple[Source, Fault | None]:
    empty = Source(name, "")
    if len(content) > limits.size_bytes:
        message = f"the file has {len(content):,} bytes; a config may have {limits.size_bytes:,}"
        return empty, Fault("DM001", message, _at(empty, 1, 1), help="raise yaml-size-limit in the settings if it is really a config")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return empty, Fault("DM002", "the file is UTF-16; configs are UTF-8", _at(empty, 1, 1), help="save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = content[: error.start].decode("utf-8-sig")
        line, column = _line_and_column(good, len(good))
        source = Source(name, content.decode("utf-8", "replace").removeprefix("\ufeff"))
        message = f"byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8"
        return source, Fault("DM002", message, _at(source, line, column), help="save the file as UTF-8")
    source = Source(name, text)
    match = _FORBIDDEN.search(text)
    if match is None:
        return source, None
    line, column = _line_and_column(text, match.start())
    message = f"the character U+{ord(match[0]):04X} is not allowed in a config"
    return source, Fault("DM003", message, _at(source, line, column), help="remove it")


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    ends = [match.end() for match in _LINE_END.finditer(text, 0, offset)]
    return len(ends) + 1, offset - (ends[-1] if ends else 0) + 1


def _at(source: Source, line: int, column: int, length: int = 1) -> Position:
    return Position(source, Place(line, column), Place(line, column + length))


# --- events to data ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Anchor:
    value: Plain
    nodes: int


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    value: dict[str, Plain] | list[Plain]
    path: DocumentPath
    start: yaml.Mark
    anchor: str | None
    nodes_before: int
    key: str | None = None
    key_position: Position | None = None
    merges: list[tuple[Plain, Position]] = field(default_factory=list)
    merging: bool = False
    is_key: bool = False


class _Builder:
    """Builds data, positions and faults from events; a class because these three grow together."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.positions: dict[DocumentPath, NodePosition] = {}
        self.faults: list[Fault] = []
        self._anchors: dict[str, _Anchor] = {}
        self._stack: list[_Open] = []
        self._nodes = 0
        self._root: Plain = None
        self._documents = 0

    def build(self) -> dict[str, Plain] | None:
        for event in self._events():
            self._take(event)
        if self._documents == 0 or (self._root is None and not self.source.text.strip(" \t\r\n-.")):
            return self._fail_root("DM011", "the file is empty", "run 'devmap init' for a config to start from")
        if isinstance(self._root, dict):
            return self._root
        hint = "keys and values are written 'key: value', with a blank after the colon"
        if "\u00a0" in self.source.text:
            hint = "the file has no-break spaces (U+00A0), which YAML reads as letters; use plain blanks"
        found = shown(self._root) if isinstance(self._root, list) else f"the value {shown(self._root)}"
        return self._fail_root("DM012", f"expected a mapping at the top of the file, found {found}", hint)

    def _fail_root(self, code: str, message: str, hint: str) -> None:
        if not self.faults:
            self.faults.append(Fault(code, message, _at(self.source, 1, 1), help=hint))

    def _events(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self.source.text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError as error:
            raise _Stop(_syntax_fault(error, self.source)) from None

    def _take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._start_document(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close(event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        position = self._position(event.start_mark, event.end_mark)
        if self._documents > 1:
            raise _Stop(Fault("DM010", "a second document starts here; a config is one document", position, help="split the file"))
        if event.version or event.tags:
            self.faults.append(Fault("DM015", "YAML directives (%YAML, %TAG) are not read", position, help="remove the line"))

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        self._count(1, event)
        if len(self._stack) >= self.limits.depth:
            message = f"collections are nested more than {self.limits.depth} deep"
            raise _Stop(Fault("DM008", message, self._position(event.start_mark, event.start_mark)))
        self._refuse_tag(event)
        is_mapping = isinstance(event, yaml.MappingStartEvent)
        is_key = bool(self._stack) and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None
        if is_key:
            braces = event.flow_style and is_mapping
            found = "a mapping" if is_mapping else "a list"
            position = self._position(event.start_mark, event.start_mark)
            hint = "put quotes round template braces" if braces else "put quotes round it if it is meant as text"
            raise _Stop(Fault("DM014", f"{found} cannot be a key", position, help=hint))
        self._stack.append(_Open({} if is_mapping else [], self._next_path(), event.start_mark, event.anchor, self._nodes))

    def _close(self, event: yaml.Event) -> None:
        node = self._stack.pop()
        if node.merges:
            self._merge(node)
        if node.anchor:
            self._anchors[node.anchor] = _Anchor(node.value, self._nodes - node.nodes_before + 1)
        self._place(node.value, self._position(node.start, event.end_mark))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count(1, event)
        position = self._position(event.start_mark, event.end_mark)
        parent = self._stack[-1] if self._stack else None
        self._refuse_tag(event)
        self._refuse_characters(event, position)
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._key(parent, event, position)
            return
        value: Plain = event.value
        if event.implicit[0] and not event.style:
            value = self._resolve(event.value, position)
        if event.anchor:
            self._anchors[event.anchor] = _Anchor(value, 1)
        self._place(value, position)

    def _key(self, parent: _Open, event: yaml.ScalarEvent, position: Position) -> None:
        key = event.value
        if event.anchor:
            self._anchors[event.anchor] = _Anchor(key, 1)
        if key == "<<" and not event.style:
            parent.key, parent.key_position, parent.merging = key, position, True
            return
        assert isinstance(parent.value, dict)  # noqa: S101 - for the type checker
        if key in parent.value:
            first = self.positions[(*parent.path, key)].key
            where = f"; it stands at line {first.start.line} already" if first else ""
            self.faults.append(
                Fault(
                    "DM006",
                    f"the key {shown(key)} comes twice in one mapping{where}",
                    position,
                    (*parent.path, key),
                    help="keep one of them",
                )
            )
        parent.key, parent.key_position = key, position

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor
        position = self._position(event.start_mark, event.end_mark)
        if any(node.anchor == name for node in self._stack):
            raise _Stop(Fault("DM013", f"'*{name}' stands inside the node that it names", position))
        anchor = self._anchors.get(name)
        if anchor is None:
            hint = f"put quotes round a pattern that begins with '*': '*{name}...'"
            raise _Stop(Fault("DM013", f"no anchor '&{name}' comes before '*{name}'", position, help=hint))
        self._count(anchor.nodes, event)
        parent = self._stack[-1] if self._stack else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            raise _Stop(Fault("DM014", "an alias cannot be a key", position, help="put quotes round it if it is meant as text"))
        self._place(anchor.value, position)

    def _place(self, value: Plain, position: Position) -> None:
        """Put a finished value into the collection that is open, or make it the root."""
        if not self._stack:
            self._root = value
            self.positions[()] = NodePosition(None, position)
            return
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            self.positions[*parent.path, len(parent.value)] = NodePosition(None, position)
            parent.value.append(value)
            return
        assert parent.key is not None  # noqa: S101 - for the type checker
        if parent.merging:
            parent.merges.append((value, position))
        elif parent.key not in parent.value:  # of two equal keys the first stays, so that later findings point at one place
            parent.value[parent.key] = value
            self.positions[*parent.path, parent.key] = NodePosition(parent.key_position, position)
        parent.key, parent.merging = None, False

    def _merge(self, node: _Open) -> None:
        assert isinstance(node.value, dict)  # noqa: S101 - for the type checker
        for value, position in node.merges:
            for parent in value if isinstance(value, list) else [value]:
                if not isinstance(parent, dict):
                    self.faults.append(Fault("DM017", f"'<<' merges mappings, found {shown(parent)}", position, node.path))
                    continue
                self._count(len(parent), position)
                for key, item in parent.items():
                    if key not in node.value:
                        node.value[key] = item
                        self.positions[*node.path, key] = NodePosition(position, position)

    def _next_path(self) -> DocumentPath:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        last = len(parent.value) if isinstance(parent.value, list) else parent.key
        assert last is not None  # noqa: S101 - for the type checker
        return (*parent.path, last)

    def _count(self, nodes: int, where: yaml.Event | Position) -> None:
        self._nodes += nodes
        if self._nodes > self.limits.nodes:
            position = where if isinstance(where, Position) else self._position(where.start_mark, where.start_mark)
            message = f"the file has more than {self.limits.nodes:,} nodes once aliases and merges are expanded"
            raise _Stop(Fault("DM009", message, position))

    def _refuse_tag(self, event: yaml.NodeEvent) -> None:
        if event.tag is not None:
            position = self._position(event.start_mark, event.end_mark)
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.faults.append(
                Fault(
                    "DM007",
                    f"the tag {shown(tag)} is not read; values have their plain type",
                    position,
                    self._fault_path(),
                    help="remove the tag",
                )
            )

    def _refuse_characters(self, event: yaml.ScalarEvent, position: Position) -> None:
        match = _FORBIDDEN.search(event.value) if event.style == '"' else None
        if match:
            message = f"the escaped character U+{ord(match[0]):04X} is not allowed in a config"
            self.faults.append(Fault("DM003", message, position, self._fault_path(), help="remove it"))

    def _fault_path(self) -> DocumentPath:
        if self._stack and isinstance(self._stack[-1].value, dict) and self._stack[-1].key is None:
            return self._stack[-1].path
        return self._next_path()

    def _resolve(self, text: str, position: Position) -> Plain:
        """A plain scalar's value in the core schema of YAML 1.2, decimal numbers only."""
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.match(text):
            if len(text) > _LONGEST_NUMBER:
                self.faults.append(Fault("DM016", f"a number of {len(text):,} digits", position, self._next_path()))
                return 0
            return int(text)
        if _FLOAT.match(text):
            return float(text)
        if _LEADING_ZERO.match(text):
            proper = text.lstrip("+-0") or "0"
            edit = Edit(position, proper, f"write {proper}")
            message = f"{shown(text)} has a leading zero: YAML 1.1 reads it as octal, YAML 1.2 as decimal"
            hint = f"write {proper}, or put quotes round it if it is meant as text"
            self.faults.append(Fault("DM018", message, position, self._next_path(), help=hint, edit=edit))
        return text

    def _position(self, start: yaml.Mark, end: yaml.Mark) -> Position:
        """A stretch on the start's line: block collections end at the next token, far below."""
        first = Place(start.line + 1, start.column + 1)
        width = len(self.source.line(first.line).rstrip())
        last = end.column + 1 if end.line == start.line else width + 1
        return Position(self.source, first, Place(first.line, max(last, first.column)))


_CONSTANTS: dict[str, Plain] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?|[0-9]+[eE][-+]?[0-9]{1,3}|\.(?:inf|Inf|INF))\Z|\.(?:nan|NaN|NAN)\Z"
)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+\Z")
_LONGEST_NUMBER = 40


# --- syntax errors ----------------------------------------------------------------------------------------------------


def _syntax_fault(error: yaml.YAMLError, source: Source) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "the file is not YAML")
    line = min(mark.line + 1, len(source.lines)) if mark else 1
    text = source.line(line)
    column = min(mark.column + 1, len(text) + 1) if mark and mark.line + 1 == line else len(text) + 1
    position = _at(source, line, column)
    first = text[column - 1 : column]
    if "\t" in text[: len(text) - len(text.lstrip())]:
        place = text.index("\t") + 1
        return Fault("DM005", "tabs cannot indent YAML", _at(source, line, place), help="indent with blanks")
    if (
        first
        and first in "*&!%@`|>"
        and ("start any token" in problem or "alias" in problem or "anchor" in problem or "directive" in problem)
    ):
        value = text[column - 1 :].split(":")[0].split(" #")[0].strip()
        hint = f"put quotes round it: '{value}'"
        return Fault("DM004", f"a plain value cannot begin with '{first}'", _at(source, line, column, max(1, len(value))), help=hint)
    if "mapping values are not allowed" in problem:
        hint = "a value that holds ': ' needs quotes, and a nested mapping starts on a line of its own, further in"
        return Fault("DM004", "a second ': ' on this line, or a line that is indented too far", position, help=hint)
    return Fault("DM004", f"not YAML: {problem}", position)
