"""Names that a policy's schema may use: what its subject really has.

A misspelt one would be kept by every config.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from devmap.config.model.placement_config import PlacementConfig

__all__ = ["unknown_names"]

Names = Mapping[str, Any]
"""What may stand at a place, by name, each with what may stand below it; `*` is any name. Empty: nothing is
known."""

_DEVICE: Names = {
    "capacity_bytes": {},
    "weight_bytes": {},
    "reserved_bytes": {},
    "free_bytes": {},
    "kept_free_percent": {},
}
_SUBJECTS: dict[str, Names] = {
    "plan": {
        "strategy": {},
        "dtype": {},
        "devices": {"*": _DEVICE},
        "accelerators": {"*": _DEVICE},
        "accelerator_bytes": {},
        "cpu_bytes": {},
        "disk_bytes": {},
        "streamed_bytes": {},
        "first_accelerator_is_lightest": {},
    },
    "lock": {"present": {}, "fresh": {}, "edited": {}},
}
_SAME_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
"""Keywords whose schemas judge the same value."""


def unknown_names(schema: object, over: str) -> Iterator[tuple[tuple[str | int, ...], str, tuple[str, ...]]]:
    """Yield each name that the subject does not have.

    Its path in the schema, itself, and the names there are.

    >>> device = {"properties": {"kept_free_procent": {}}}
    >>> schema = {"properties": {"accelerators": {"additionalProperties": device}}}
    >>> [name for _, name, _ in unknown_names(schema, "plan")]
    ['kept_free_procent']
    """
    yield from _walked(schema, _config() if over == "config" else _SUBJECTS[over], ())


Unknown = Iterator[tuple[tuple[str | int, ...], str, tuple[str, ...]]]


def _walked(schema: object, names: Names, path: tuple[str | int, ...]) -> Unknown:
    if not isinstance(schema, Mapping) or not names:
        return
    yield from _named_here(schema, names, path)
    for part, below, where in _below(schema, names):
        yield from _walked(part, below, (*path, *where))


def _named_here(schema: Mapping[str, Any], names: Names, path: tuple[str | int, ...]) -> Unknown:
    """Yield the names that this schema itself uses and its subject does not have."""
    if "*" in names:
        return
    properties, required = schema.get("properties"), schema.get("required")
    for name in properties if isinstance(properties, Mapping) else ():
        if name not in names:
            yield (*path, "properties", name), str(name), tuple(names)
    for number, name in enumerate(required if isinstance(required, list) else ()):
        if name not in names:
            yield (*path, "required", number), str(name), tuple(names)


def _below(schema: Mapping[str, Any], names: Names) -> Iterator[tuple[object, Names, tuple[str | int, ...]]]:
    """Yield the schemas inside, with the names at their places and the way to them."""
    for keyword in _SAME_PLACE:
        value = schema.get(keyword)
        if isinstance(value, list):
            yield from ((part, names, (keyword, number)) for number, part in enumerate(value))
        elif value is not None:
            yield value, names, (keyword,)
    properties = schema.get("properties")
    for name, part in properties.items() if isinstance(properties, Mapping) else ():
        yield part, names.get(name, names.get("*", {})), ("properties", name)
    yield schema.get("additionalProperties"), names.get("*", {}), ("additionalProperties",)


@cache
def _config() -> Names:
    return _of_model(PlacementConfig)


def _of_model(model: type[BaseModel]) -> Names:
    return {name: _of_type(field.annotation) for name, field in model.model_fields.items()}


def _of_type(annotation: object) -> Names:
    """Return the names of the one model that a value may be; nothing is known of any other value."""
    if get_origin(annotation) in {Union, types.UnionType}:
        models = [
            part for part in get_args(annotation) if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        return _of_model(models[0]) if len(models) == 1 else {}
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return _of_model(annotation) if is_model and isinstance(annotation, type) else {}
