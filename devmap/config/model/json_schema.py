"""The JSON Schema of configs (draft 2020-12), made from the models, for editors and other checkers.

It accepts whatever `devmap validate` accepts and refuses every error of shape; what a value means beside the
others is known to `validate` alone. Keys such as `0` are text in JSON's terms.
"""

from __future__ import annotations

import ast
import inspect
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from devmap.config.model import placement_config, quantization_settings
from devmap.config.model.placement_config import PlacementConfig
from devmap.config.values.strategy import MEANINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CONFIG_ID", "config_schema", "field_docs", "render_schema"]


CONFIG_ID = "urn:torch-devmap:devmap.schema.json"

Node: TypeAlias = dict[str, Any]

_NOT_IN_PROFILES = ("version", "extends", "abstract", "profiles")


def config_schema() -> Node:
    """Return the schema of `*.devmap.yaml`."""
    schema = PlacementConfig.model_json_schema()
    definitions = {PlacementConfig.__name__: schema, **schema["$defs"]}
    for name, docs in field_docs().items():
        if name in definitions:  # a part that has no long form in a file has no definition
            for field, text in docs.items():
                definitions[name]["properties"][field]["description"] = text
    for node in _nodes(schema):
        _tidy(node)
    device = schema["$defs"]["MachineDevice"]
    needed: Node = {
        "required": [name for name in schema.pop("required") if name != "model"],
        "oneOf": [
            {"required": ["model"]},
            {"required": ["components"], "properties": {"components": {"minProperties": 1}}},
        ],
    }
    if "required" in device:
        memory = {"properties": {"devices": {"additionalProperties": {"required": device.pop("required")}}}}
        needed["properties"] = {"machine": memory}
    schema["$defs"]["Profile"] = _profile(schema)
    schema["properties"]["profiles"]["additionalProperties"] = {"$ref": "#/$defs/Profile"}
    for node in _nodes(schema):
        _write_for_hovers(node)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": CONFIG_ID,
        "title": "devmap config",
        **schema,
        # A config that extends another may leave to it what a config of its own needs, and an abstract one to
        # those that extend it.
        "if": {
            "not": {
                "anyOf": [
                    {"required": ["extends"]},
                    {"required": ["abstract"], "properties": {"abstract": {"const": True}}},
                ]
            }
        },
        "then": needed,
    }


def render_schema(schema: Node) -> str:
    """Return a schema as it stands in `schema/`."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _profile(schema: Node) -> Node:
    """Return a config's keys, none of which a profile needs."""
    properties = {key: node for key, node in schema["properties"].items() if key not in _NOT_IN_PROFILES}
    return {
        "type": "object",
        "description": "Changes to the config.",
        "properties": properties,
        "additionalProperties": False,
    }


def _nodes(node: object) -> Iterator[Node]:
    """Yield every schema inside a schema, the outermost first."""
    if isinstance(node, dict):
        if not _holds_names(node):
            yield node
        for child in node.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)


def _holds_names(node: Node) -> bool:
    """Return whether a mapping is no schema but holds some under names of ours: `properties`, `$defs`."""
    return bool(node) and all(isinstance(child, dict) for child in node.values()) and "anyOf" not in node


def _tidy(node: Node) -> None:
    """Titles that repeat a name go, and defaults that say 'left out'; patterns close their mapping.

    Words get meanings.
    """
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", ...) is None:
        del node["default"]
    if "patternProperties" in node:
        node.setdefault("additionalProperties", False)
    if isinstance(node.get("description"), str):
        text = " ".join(node.pop("description").split())
        rest = dict(node)
        node.clear()
        node.update({"description": text, **rest})
    words = node.get("enum")
    if isinstance(words, list) and all(word in MEANINGS for word in words):
        node["enumDescriptions"] = [MEANINGS[word] for word in words]
        node["enum"] = [str(word) for word in words]


_KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "string": "text",
}


def _write_for_hovers(node: Node) -> None:
    """Add what the YAML language server shows when one hovers over a key.

    It takes alternatives without a title for each other and then shows none of their texts, and it shows the
    backticks of a description that is not said to be Markdown.
    """
    for alternative in node.get("anyOf", ()):
        if "enum" in alternative:
            alternative["title"] = "one of these words"
        elif "anyOf" in alternative:
            alternative["title"] = "one of these"
        elif "$ref" not in alternative:
            alternative["title"] = _KINDS.get(alternative.get("type", ""), "a mapping")
    if "`" in node.get("description", ""):
        node["markdownDescription"] = node["description"]


# The docstrings under the fields of the models, for the JSON Schema.
#
# pydantic can collect them while the classes are made, which takes a third of the time to import them; only
# the schema needs them.


def field_docs() -> dict[str, dict[str, str]]:
    """Return each field's docstring on one line, by class and field."""
    trees = [ast.parse(inspect.getsource(each)) for each in (placement_config, quantization_settings)]
    nodes = [node for tree in trees for node in tree.body]
    return {node.name: _docs_of(node) for node in nodes if isinstance(node, ast.ClassDef)}


def _docs_of(definition: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
        ):
            text = after.value.value if isinstance(after.value, ast.Constant) else None
            if isinstance(text, str):
                found[_key_of(field) or field.target.id] = " ".join(text.split())
    return found


def _key_of(field: ast.AnnAssign) -> str | None:
    """Return the key that a field has in a file, where its name in Python is another."""
    keywords = field.value.keywords if isinstance(field.value, ast.Call) else []
    found = (each.value for each in keywords if each.arg == "alias")
    return next((str(each.value) for each in found if isinstance(each, ast.Constant)), None)
