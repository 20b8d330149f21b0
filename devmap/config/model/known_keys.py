"""Which keys a mapping of a config may have.

Read from the JSON Schema of its model, once, when the first is wrong.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydantic import BaseModel

    from devmap.config.yaml.faults import DocumentPath

__all__ = ["elsewhere", "known_keys"]

Node: TypeAlias = dict[str, Any]


def known_keys(model: type[BaseModel], path: DocumentPath) -> tuple[str, ...]:
    """Return the keys that the mapping at `path` may have; empty where any will do."""
    schema = _schema(model)
    node = schema
    for part in path:
        node = _child(node, part, schema)
    return tuple(_mapping_form(node, schema).get("properties", ()))


def elsewhere(model: type[BaseModel], name: str) -> str:
    """Return where a key that stands in the wrong mapping belongs: `'model'`.

    Empty where there is no such key.
    """
    schema = _schema(model)
    if name in schema["properties"]:
        return "the config itself, one level up"
    for section, node in schema["properties"].items():
        if name in _mapping_form(node, schema).get("properties", ()):
            return f"'{section}'"
    return ""


@cache
def _schema(model: type[BaseModel]) -> Node:
    return model.model_json_schema()


def _mapping_form(node: Node, schema: Node) -> Node:
    """Return the mapping among a node's forms (a word, a mapping, null)."""
    reference = node.get("$ref")
    if reference is not None:
        found: Node = schema["$defs"][reference.rpartition("/")[2]]
        return found
    forms = (_mapping_form(form, schema) for form in node.get("anyOf", ()))
    return next((form for form in forms if form.get("type") == "object"), node)


def _child(node: Node, part: str | int, schema: Node) -> Node:
    mapping = _mapping_form(node, schema)
    properties = mapping.get("properties", {})
    if part in properties:
        found: Node = properties[part]
        return found
    for inner in (
        mapping.get("additionalProperties"),
        *mapping.get("patternProperties", {}).values(),
        _items(node, schema),
    ):
        if isinstance(inner, dict):
            return inner
    return {}


def _items(node: Node, schema: Node) -> Node | None:
    if "items" in node:
        items: Node = node["items"]
        return items
    found = (_items(form, schema) for form in node.get("anyOf", ()))
    return next((items for items in found if items is not None), None)
