"""What the JSON Schema says at a place of a config.

Which keys may stand there, which words, and what they mean.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from devmap.config.model.json_schema import config_schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["description_at", "keys_at", "words_at"]

Node = dict[str, Any]


def keys_at(path: Sequence[str]) -> Mapping[str, str]:
    """Return the keys that may stand below a path, with their descriptions."""
    return {
        key: _described(below)
        for node in _nodes_at(tuple(path))
        for key, below in node.get("properties", {}).items()
    }


def words_at(path: Sequence[str]) -> Mapping[str, str]:
    """Return the fixed words that the value at a path may be, with what each means where that is known."""
    found: dict[str, str] = {}
    for node in _nodes_at(tuple(path)):
        words = node.get("enum", [node["const"]] if "const" in node else [])
        for word in words:
            found.setdefault(str(word), node.get("description", ""))
    return found


def description_at(path: Sequence[str]) -> str:
    """Return what the schema says of the value at a path; empty where it says nothing."""
    if not path:
        return ""
    return keys_at(path[:-1]).get(path[-1], "")


@cache
def _schema() -> Node:
    return config_schema()


def _described(node: Node) -> str:
    text = node.get("markdownDescription") or node.get("description") or ""
    return str(text)


def _nodes_at(path: tuple[str, ...]) -> list[Node]:
    nodes = list(_alternatives(_schema()))
    for key in path:
        below: list[Node] = []
        for node in nodes:
            if key in node.get("properties", {}):
                below += _alternatives(node["properties"][key])
            elif isinstance(node.get("additionalProperties"), dict):
                below += _alternatives(node["additionalProperties"])
            for pattern, named in node.get("patternProperties", {}).items():
                if re.search(pattern, key):
                    below += _alternatives(named)
            if isinstance(node.get("items"), dict):
                below += _alternatives(node["items"])
        nodes = below
    return nodes


def _alternatives(node: Node) -> Iterator[Node]:
    """Yield a node and everything that it may be instead, references followed."""
    yield node
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        yield from _alternatives(_schema()["$defs"][name])
    for kind in ("anyOf", "oneOf", "allOf"):
        for other in node.get(kind, ()):
            yield from _alternatives(other)
