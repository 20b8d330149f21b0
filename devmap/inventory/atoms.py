"""Atoms: the smallest units that are placed."""

from __future__ import annotations

from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from devmap.inventory.dtypes import run_dtype, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

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


def atoms(inventory: Inventory, *, no_split_module_classes: Collection[str] | None = None, dtype: str | None = None) -> tuple[Atom, ...]:
    """The atoms of a model in registration order; every tensor is in exactly one.

    `no_split_module_classes` defaults to the inventory's own; `dtype` is the run dtype of the config. Linear in modules plus tensors,
    and worked out once for an inventory.
    """
    whole = frozenset(inventory.no_split_module_classes if no_split_module_classes is None else no_split_module_classes)
    question = ("atoms", whole, dtype)
    known: tuple[Atom, ...] | None = inventory.remembered.get(question)
    if known is None:
        known = inventory.remembered[question] = tuple(_atoms(inventory, whole, dtype))
    return known


def _atoms(inventory: Inventory, whole: Collection[str], dtype: str | None) -> Iterator[Atom]:
    line, sizes = inventory.line, tensor_sizes(inventory, dtype)
    names, first, after = line.tensors, line.first, line.after
    classes = tuple(inventory.modules.values())
    owner = inventory.owner
    owned = [sizes[name] if owner.get(name, name) == name else 0 for name in names] if owner else sizes.values()
    up_to = [0, *accumulate(owned)]
    place = 0
    while place < len(classes):
        beyond, start = after[place], first[place]
        if beyond > place + 1 and classes[place] not in whole:
            beyond = place + 1
            for number in range(start, first[beyond]):
                yield Atom(names[number], "", (names[number],), up_to[number + 1] - up_to[number], is_tensor=True)
        elif start < (end := first[beyond]):
            yield Atom(line.modules[place], classes[place], names[start:end], up_to[end] - up_to[start])
        place = beyond


def tensor_sizes(inventory: Inventory, dtype: str | None) -> Mapping[str, int]:
    """Bytes of every tensor at the run dtype. Most tensors of a model look like others: each look is worked out once."""
    question = ("sizes", dtype)
    found: dict[str, int] | None = inventory.remembered.get(question)
    if found is None:
        looks = list(map(_LOOK, inventory.tensors.values()))
        known = {
            (shape, stored, kind): storage_bytes(shape, run_dtype(stored, dtype, kind=kind)) for shape, stored, kind in dict.fromkeys(looks)
        }
        found = inventory.remembered[question] = dict(zip(inventory.tensors, map(known.__getitem__, looks), strict=True))
    return found


_LOOK = itemgetter(1, 2, 3)
"""Shape, dtype and kind of a tensor."""
