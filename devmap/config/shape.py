"""pydantic's errors turned into faults with our codes, our words and a place in the file."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from pydantic import ValidationError

from devmap.config.faults import DocumentPath, Edit, Fault
from devmap.config.model import PlacementConfig
from devmap.config.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from devmap.config.source import Position
    from devmap.config.yaml_reader import NodePosition, Plain

__all__ = ["locate", "validate_shape"]

_SUGGESTION_CUTOFF = 0.6


def validate_shape(
    data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition]
) -> tuple[PlacementConfig | None, tuple[Fault, ...]]:
    """The config that `data` describes, or the faults that keep it from being one."""
    try:
        return PlacementConfig.model_validate(data), ()
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    return None, tuple(_fault(detail, data, positions) for detail in details)


def locate(path: DocumentPath, positions: Mapping[DocumentPath, NodePosition], *, key: bool = False) -> Position:
    """The place of a node, of its key if asked, or of the nearest node above that the file has."""
    wanted = path
    while wanted not in positions:
        wanted, key = wanted[:-1], True
    node = positions[wanted]
    return node.key if key and node.key is not None else node.value


def _fault(detail: ErrorDetails, data: dict[str, Plain], positions: Mapping[DocumentPath, NodePosition]) -> Fault:
    location = detail["loc"]
    about_key = bool(location) and location[-1] == "[key]"
    path = _document_path(location[:-1] if about_key else location, data)
    kind = detail["type"]
    value = _value_at(path, data)
    if kind.startswith("DM"):
        return Fault(kind, detail["ctx"]["reason"], locate(path, positions, key=about_key), path)
    if kind == "extra_forbidden":
        return _unknown_key(path, positions)
    if kind == "missing":
        parent, name = path, str(location[-1])
        where = f"'{parent[-1]}'" if parent else "the config"
        return Fault("DM102", f"{where} lacks '{name}'", locate(parent, positions, key=True), (*parent, name), help=f"add '{name}:'")
    code, expected = _expectation(detail)
    return Fault(code, f"'{_dotted(path)}' expects {expected}, found {shown(value)}", locate(path, positions), path)


def _unknown_key(path: DocumentPath, positions: Mapping[DocumentPath, NodePosition]) -> Fault:
    name = str(path[-1])
    known = _known_keys(path[:-1])
    near = difflib.get_close_matches(name, known, n=3, cutoff=_SUGGESTION_CUTOFF)
    position = locate(path, positions, key=True)
    label = f"did you mean '{near[0]}'?" if near else ""
    edit = Edit(position, near[0], f"rename to '{near[0]}'") if len(near) == 1 else None
    where = f"'{_dotted(path[:-1])}'" if len(path) > 1 else "a config"
    hint = "" if near else f"known keys: {', '.join(sorted(known))}"
    return Fault("DM101", f"'{name}' is no key of {where}", position, path, help=hint, label=label, edit=edit)


def _known_keys(path: DocumentPath) -> tuple[str, ...]:
    """The keys that the mapping at `path` may have, read from the schema of the model."""
    schema = PlacementConfig.model_json_schema()
    node = schema
    for part in path:
        node = _child(node, part, schema["$defs"])
    return tuple(_mapping_form(node, schema["$defs"]).get("properties", ()))


def _mapping_form(node: dict[str, object], definitions: dict[str, dict[str, object]]) -> dict[str, object]:
    """Of a node's forms (a word, a mapping, null) the one that is a mapping."""
    reference = node.get("$ref")
    if isinstance(reference, str):
        return definitions[reference.rpartition("/")[2]]
    forms = node.get("anyOf")
    if isinstance(forms, list):
        for form in forms:
            found = _mapping_form(form, definitions)
            if found.get("type") == "object":
                return found
    return node


def _child(node: dict[str, object], part: str | int, definitions: dict[str, dict[str, object]]) -> dict[str, object]:
    mapping = _mapping_form(node, definitions)
    properties = mapping.get("properties")
    if isinstance(properties, dict) and part in properties:
        return dict(properties[part])
    for key in ("additionalProperties", "patternProperties", "items"):
        inner = mapping.get(key)
        if isinstance(inner, dict):
            return dict(next(iter(inner.values())) if key == "patternProperties" else inner)
    return {}


def _expectation(detail: ErrorDetails) -> tuple[str, str]:
    """The code and the words for what pydantic expected."""
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "enum" | "literal_error":
            return "DM106", f"one of {context['expected'].replace(' or ', ', ')}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
            key = next(iter(context))
            return "DM107", f"{words[key]} {context[key]:,}"
        case "string_pattern_mismatch":
            return "DM107", f"text of the form {context['pattern']}"
        case _:
            return "DM103", _TYPES.get(kind, "another kind of value")


_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "list_type": "a list",
}


def _document_path(location: tuple[int | str, ...], data: Plain) -> DocumentPath:
    """pydantic's location without the parts that short forms and key errors put into it."""
    path: list[str | int] = []
    node = data
    for part in location:
        if isinstance(node, dict) and part in node:
            node = node[str(part)]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _value_at(path: DocumentPath, data: Plain) -> Plain:
    node = data
    for part in path:
        node = node[part]  # type: ignore[index,call-overload]  # the path was walked through this data
    return node


def _dotted(path: DocumentPath) -> str:
    return ".".join(str(part) for part in path)
