"""Atoms: the smallest units that are placed."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from devmap.inventory.dtypes import run_dtype, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from devmap.inventory.model import Inventory

__all__ = ["Atom", "atoms", "tensor_sizes"]


class Atom(NamedTuple):
    """A module whose class may not be split, a module without children, or a tensor directly on a module that is split.

    `tensors` are the names of all tensors inside, tied ones included; `nbytes` counts, at the run dtype, those whose bytes
    this atom owns (a tied tensor counts in the atom that holds the group's first name). A named tuple, since models have 10^5
    atoms and a frozen dataclass takes three times as long to make.
    """

    path: str
    class_name: str
    """Empty for a tensor."""
    tensors: tuple[str, ...]
    nbytes: int
    is_tensor: bool = False


def atoms(
    inventory: Inventory,
    *,
    no_split_module_classes: Collection[str] | None = None,
    dtype: str | None = None,
    sizes: Mapping[str, int] | None = None,
) -> tuple[Atom, ...]:
    """The atoms of a model in registration order; every tensor is in exactly one.

    `no_split_module_classes` defaults to the inventory's own; `dtype` is the run dtype of the config; `sizes` is what
    `tensor_sizes` gave for it, where that is known already. Linear in modules plus tensors.
    """
    whole = frozenset(inventory.no_split_module_classes if no_split_module_classes is None else no_split_module_classes)
    sizes = tensor_sizes(inventory, dtype) if sizes is None else sizes
    modules, children_of, tensors_of, owner = inventory.modules, inventory.children, inventory.own_tensors, inventory.owner
    found: list[Atom] = []
    pending = [""]
    while pending:
        path = pending.pop()
        children = children_of[path]
        own = tensors_of[path]
        if children and modules[path] not in whole:
            for tensor in own:
                name = tensor.name
                found.append(Atom(name, "", (name,), sizes[name] if owner.get(name, name) == name else 0, is_tensor=True))
            pending += children[::-1]
            continue
        if not children and len(own) == 1 and not owner:
            name = own[0].name
            found.append(Atom(path, modules[path], (name,), sizes[name]))  # most atoms by far where each expert is a module
            continue
        names = tuple([tensor.name for tensor in own] if not children else _inside(inventory, path))
        if names:
            found.append(Atom(path, modules[path], names, sum([sizes[name] for name in names if owner.get(name, name) == name])))
    return tuple(found)


def tensor_sizes(inventory: Inventory, dtype: str | None) -> dict[str, int]:
    """Bytes of every tensor at the run dtype. Most tensors of a model look like others: each look is worked out once."""
    known: dict[tuple[object, ...], int] = {}
    found: dict[str, int] = {}
    for (name, tensor), look in zip(inventory.tensors.items(), map(_LOOK, inventory.tensors.values()), strict=True):
        nbytes = known.get(look)
        if nbytes is None:
            nbytes = known[look] = storage_bytes(tensor.shape, run_dtype(tensor.dtype, dtype, kind=tensor.kind))
        found[name] = nbytes
    return found


_LOOK = attrgetter("shape", "dtype", "kind")


def _inside(inventory: Inventory, root: str) -> list[str]:
    found: list[str] = []
    pending = [root]
    while pending:
        path = pending.pop()
        found += [tensor.name for tensor in inventory.own_tensors[path]]
        pending += inventory.children[path][::-1]
    return found
