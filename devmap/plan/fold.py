"""Device maps in few keys: whole subtrees that live on one device stand under one name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.inventory.model import Inventory

__all__ = ["covers", "fold_device_map"]

Value = TypeVar("Value")


class _Mixed:
    """Marks a module whose tensors live on more than one device."""


_MIXED = _Mixed()


def fold_device_map(values: Mapping[str, Value], inventory: Inventory) -> dict[str, Value]:
    """The map with the fewest keys of which no two overlap, from the value of every tensor.

    A module whose tensors all have one value becomes one key, the highest such module; a tensor that sits directly on a
    mixed module is a key of its own; `{"": value}` where all are equal. No key is a prefix of another, so that the first
    match is the longest match too, whoever reads it. Keys are in the model's order. Tensors without a value (a subtree
    that a partial map leaves out) get no key, and no key stands above them. Linear in modules plus tensors.
    """
    children, own = inventory.children, inventory.own_tensors
    uniform: dict[str, Value | _Mixed] = {}
    for path in reversed(list(inventory.modules)):
        below, tensors = children[path], own[path]
        if not below and len(tensors) == 1:
            uniform[path] = values.get(tensors[0].name, _MIXED)
            continue
        found = {values.get(tensor.name, _MIXED) for tensor in tensors}
        found.update([uniform[child] for child in below])
        uniform[path] = found.pop() if len(found) == 1 else _MIXED
    folded: dict[str, Value] = {}
    pending = [""]
    while pending:
        path = pending.pop()
        value = uniform[path]
        if not isinstance(value, _Mixed):
            folded[path] = value
            continue
        for tensor in own[path]:
            if tensor.name in values:
                folded[tensor.name] = values[tensor.name]
        pending += reversed(children[path])
    return folded


def covers(device_map: Mapping[str, Value], name: str) -> Value | None:
    """The value of the longest key that names a module or tensor, or a module above it; None where no key does."""
    path = name
    while path not in device_map:
        if not path:
            return None
        path = path.rpartition(".")[0]
    return device_map[path]
