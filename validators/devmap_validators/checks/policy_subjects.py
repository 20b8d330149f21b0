"""What the schemas of a policy see: the config, its plan or its lock as plain data.

And the way back to the document, and which names a schema may use of them: a misspelt one would be kept by
every config.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from devmap.config.model.placement_config import PlacementConfig
from devmap.config.values.device import Tier, parse_device
from devmap.plan.fingerprint import config_fingerprint
from devmap_validators.checks.config_map import machine_memory

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context
    from devmap.plan.model import DeviceUse, Plan

__all__ = ["document_path", "subject", "unknown_names"]


def subject(over: str, context: Context) -> dict[str, object] | None:
    """Plain data of the `config`, the `plan` or the `lock`; None where it is not there to be judged.

    The config has its long form: `device_map` is a mapping, sizes are bytes, shares are text. The plan has
    bytes per device with `kept_free_percent` of what the device holds, and where weights lie. The lock says
    whether it is `present`, `fresh` and `edited`.
    """
    config = context.document.config
    if config is None:
        return None
    if over == "config":
        return {str(key): value for key, value in config.model_dump(mode="json").items()}
    if over == "plan":
        return None if context.plan is None else _plan(context.plan, context)
    return _lock(config, context) if context.judges_lock else None


def document_path(over: str, path: tuple[str | int, ...], context: Context) -> DocumentPath:
    """Return the part of the document that a schema's error is about.

    The nearest node that somebody wrote.
    """
    if over == "lock":
        return ()
    if over == "plan":
        in_devices = len(path) > 1 and path[0] in {"devices", "accelerators"}
        return _written_part(("max_memory", path[1]) if in_devices else ("device_map",), context)
    return _written_part(path, context)


def _written_part(path: tuple[str | int, ...], context: Context) -> DocumentPath:
    node: object = context.document.data
    walked: list[str | int] = []
    for part in path:
        if isinstance(node, dict):
            key = (
                str(part)
                if str(part) in node
                else next((key for key in node if _same_device(key, part)), None)
            )
            if key is None:
                break
            walked.append(key)
            node = node[key]
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            walked.append(part)
            node = node[part]
        else:
            break
    return tuple(walked)


def _same_device(key: object, part: object) -> bool:
    try:
        return parse_device(key) == parse_device(part)
    except ValueError:
        return False


def _plan(plan: Plan, context: Context) -> dict[str, object]:
    accelerators = [use for use in plan.devices if use.device.is_accelerator]
    on_tier = dict.fromkeys(Tier, 0)
    for use in plan.devices:
        on_tier[use.device.tier] += use.weight_bytes
    lightest = min(accelerators, key=lambda use: use.weight_bytes, default=None)
    return {
        "strategy": plan.strategy,
        "dtype": plan.dtype,
        "devices": {str(use.device): _device(use, context) for use in plan.devices},
        "accelerators": {str(use.device): _device(use, context) for use in accelerators},
        "accelerator_bytes": on_tier[Tier.ACCELERATOR],
        "cpu_bytes": on_tier[Tier.CPU],
        "disk_bytes": on_tier[Tier.DISK],
        "streamed_bytes": sum(placement.nbytes for placement in plan.streamed),
        "first_accelerator_is_lightest": lightest is None
        or accelerators[0].weight_bytes <= lightest.weight_bytes,
    }


def _device(use: DeviceUse, context: Context) -> dict[str, object]:
    kept = sum(charge.nbytes for charge in use.charges if charge.what == "headroom")
    capacity = use.capacity_bytes
    memory = machine_memory(context, use.device) or capacity
    share = 100.0 if not memory or capacity is None else round(100 * (memory - capacity + kept) / memory, 2)
    return {
        "capacity_bytes": capacity,
        "weight_bytes": use.weight_bytes,
        "reserved_bytes": use.reserved_bytes,
        "free_bytes": use.free_bytes,
        "kept_free_percent": share,
    }


def _lock(config: PlacementConfig, context: Context) -> dict[str, object]:
    lock = context.lock
    now = context.plan.config_fingerprint if context.plan is not None else ""
    fresh = lock is not None and lock.config_fingerprint == (now or config_fingerprint(config))
    return {"present": lock is not None, "fresh": fresh, "edited": lock is not None and lock.is_hand_edited}


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
