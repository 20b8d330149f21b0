"""Atoms: the smallest units that are placed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.inventory.dtypes import run_dtype, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Collection

    from devmap.inventory.model import Inventory, Tensor

__all__ = ["Atom", "atoms"]


@dataclass(frozen=True, slots=True)
class Atom:
    """A module whose class may not be split, a module without children, or a tensor directly on a module that is split.

    `tensors` are the names of all tensors inside, tied ones included; `nbytes` counts, at the run dtype, those whose bytes
    this atom owns (a tied tensor counts in the atom that holds the group's first name).
    """

    path: str
    class_name: str
    """Empty for a tensor."""
    tensors: tuple[str, ...]
    nbytes: int
    is_tensor: bool = False


def atoms(inventory: Inventory, *, no_split_module_classes: Collection[str] | None = None, dtype: str | None = None) -> tuple[Atom, ...]:
    """The atoms of a model in registration order; every tensor is in exactly one.

    `no_split_module_classes` defaults to the inventory's own; `dtype` is the run dtype of the config. Linear in modules plus tensors.
    """
    whole = frozenset(inventory.no_split_module_classes if no_split_module_classes is None else no_split_module_classes)
    found: list[Atom] = []
    pending = [""]
    while pending:
        path = pending.pop()
        class_name = inventory.modules[path]
        children = inventory.children[path]
        if not children or class_name in whole:
            inside = _inside(inventory, path)
            if inside:
                found.append(_atom(inventory, path, class_name, inside, dtype))
            continue
        found += [_atom(inventory, tensor.name, "", [tensor], dtype, is_tensor=True) for tensor in inventory.own_tensors[path]]
        pending += reversed(children)
    return tuple(found)


def _inside(inventory: Inventory, root: str) -> list[Tensor]:
    found: list[Tensor] = []
    pending = [root]
    while pending:
        path = pending.pop()
        found += inventory.own_tensors[path]
        pending += reversed(inventory.children[path])
    return found


def _atom(inventory: Inventory, path: str, class_name: str, tensors: list[Tensor], dtype: str | None, *, is_tensor: bool = False) -> Atom:
    owner = inventory.owner
    nbytes = sum(
        storage_bytes(tensor.shape, run_dtype(tensor.dtype, dtype, kind=tensor.kind))
        for tensor in tensors
        if owner.get(tensor.name, tensor.name) == tensor.name
    )
    return Atom(path, class_name, tuple(tensor.name for tensor in tensors), nbytes, is_tensor)
