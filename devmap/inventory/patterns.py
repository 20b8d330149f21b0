"""Keys of a device map that stand for many modules.

Ranges (`model.layers[0-39]`) and globs (`model.layers.*.mlp`).

`*` and `?` match inside one segment of a path, never across a dot. A range stands for a numbered child of the
module before
it: `layers[0-3]` is `layers.0` to `layers.3`.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Expansion", "KeyKind", "PathIndex", "expand_keys", "key_kind"]


class KeyKind(enum.IntEnum):
    """How exact a key is; where two name the same path, the more exact one wins."""

    GLOB = 0
    RANGE = 1
    LITERAL = 2


@dataclass(frozen=True, slots=True)
class Expansion:
    """What the keys of a map stand for in one model."""

    paths: Mapping[str, tuple[str, ...]]
    """For each key the module and tensor paths that it names; empty where it names nothing."""
    anchors: Mapping[str, str]
    """For each path that any key names, the key that wins."""
    conflicts: tuple[tuple[str, str, str], ...]
    """A path and two keys that are equally exact for it; the first of the two wins."""

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Keys that name nothing."""
        return tuple(key for key, paths in self.paths.items() if not paths)

    def winner(self, path: str) -> str | None:
        """Return the key that decides a module or tensor.

        That of the nearest ancestor, or of itself, that a key names.
        """
        while True:
            key = self.anchors.get(path)
            if key is not None or not path:
                return key
            path = path.rpartition(".")[0]


class PathIndex:
    """The module and tensor paths of one model as a tree, so that a pattern looks only where it can match."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._children: dict[str, dict[str, str]] = {"": {}}
        for path in paths:
            self._add(path)

    def __contains__(self, path: str) -> bool:
        return path in self._children

    def names_below(self, path: str) -> tuple[str, ...]:
        """Return the last segments of the paths directly below one path, in the model's order.

        None below a path that there is not.
        """
        return tuple(self._children.get(path, ()))

    def match(self, key: str) -> tuple[str, ...]:
        """Return the paths that a key names, in the model's order; a literal names itself or nothing."""
        if key_kind(key) is KeyKind.LITERAL:
            return (key,) if key in self else ()
        found = [""]
        for segment in _segments(key):
            found = [child for path in found for child in self._step(path, segment)]
        return tuple(found)

    def _add(self, path: str) -> None:
        while path and path not in self._children:
            self._children[path] = {}
            parent, _, name = path.rpartition(".")
            if parent not in self._children:
                self._add(parent)
            self._children[parent][name] = path
            path = parent

    def _step(self, path: str, segment: str | range) -> Iterator[str]:
        children = self._children[path]
        if isinstance(segment, range):
            if len(segment) > len(children):
                yield from (
                    child for name, child in children.items() if name.isdecimal() and int(name) in segment
                )
            else:
                yield from (children[str(number)] for number in segment if str(number) in children)
        elif "*" in segment or "?" in segment:
            pattern = _glob(segment)
            yield from (child for name, child in children.items() if pattern.match(name))
        elif segment in children:
            yield children[segment]


def _glob(segment: str) -> re.Pattern[str]:
    """Return the pattern of one segment with `*` and `?`, whose matching never goes back.

    What stands between two stars may stay at the first place where it fits, since the star after it takes up
    any rest; an atomic group says so, and keeps the time at the product of the two lengths where trying
    every way to share out a name among the stars would take exponentially long.
    """
    first, *others = (re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", segment))
    if not others:
        return re.compile(first + r"\Z", re.DOTALL)
    *middle, last = others
    between = "".join(f"(?>.*?{part})" for part in middle)
    return re.compile(rf"{first}{between}.*{last}\Z", re.DOTALL)


def key_kind(key: str) -> KeyKind:
    """Return whether a key is a glob, a range or a plain path.

    A key that is both a range and a glob is a glob.
    """
    if "*" in key or "?" in key:
        return KeyKind.GLOB
    return KeyKind.RANGE if "[" in key else KeyKind.LITERAL


def expand_keys(keys: Iterable[str], index: PathIndex) -> Expansion:
    """Return what each key names, and which key wins where several name the same path.

    Linear in the keys plus the paths they name.
    """
    paths = {key: index.match(key) for key in keys}
    anchors: dict[str, str] = {}
    conflicts: list[tuple[str, str, str]] = []
    for key, named in paths.items():
        kind = key_kind(key)
        for path in named:
            other = anchors.get(path)
            if other is None or kind > key_kind(other):
                anchors[path] = key
            elif kind == key_kind(other):
                conflicts.append((path, other, key))
    return Expansion(paths, anchors, tuple(conflicts))


_RANGE = re.compile(r"\[([0-9]+)-([0-9]+)\]\Z")


def _segments(key: str) -> Iterator[str | range]:
    """Yield the parts of a key, a range as a part of its own."""
    for part in key.split("."):
        match = _RANGE.search(part)
        if match is None:
            yield part
            continue
        yield part[: match.start()]
        yield range(int(match[1]), int(match[2]) + 1)
