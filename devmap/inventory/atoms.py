"""Atoms: the smallest units that are placed."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from devmap.inventory.bulk import rows
from devmap.inventory.dtypes import run_dtype, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from devmap.inventory.model import Inventory

__all__ = ["Atom", "NoSplitModule", "atoms", "tensor_sizes", "torn_blocks", "whole_blocks"]


class Atom(NamedTuple):
    """A module whose class may not be split, a module without children.

    Or a tensor directly on a module that is split.

    `tensors` are the names of all tensors inside, tied ones included; `nbytes` counts, at the run dtype,
    those whose bytes this atom owns (a tied tensor counts in the atom that holds the group's first name). A
    named tuple, since models have 10^5 atoms and a frozen dataclass takes three times as long to make.
    """

    path: str
    class_name: str
    """Empty for a tensor."""
    tensors: tuple[str, ...]
    nbytes: int
    is_tensor: bool = False


class NoSplitModule(NamedTuple):
    """A module that may not be split, as a stretch of the inventory's line.

    Its first tensor, and the first after it.
    """

    start: int
    end: int
    path: str


def atoms(
    inventory: Inventory, *, no_split_module_classes: Collection[str] | None = None, dtype: str | None = None
) -> tuple[Atom, ...]:
    """Return the atoms of a model in registration order; every tensor is in exactly one.

    `no_split_module_classes` defaults to the inventory's own; `dtype` is the run dtype of the config. Linear
    in modules plus tensors, and worked out once for an inventory.
    """
    whole = frozenset(
        inventory.no_split_module_classes if no_split_module_classes is None else no_split_module_classes
    )
    return inventory.once(("atoms", whole, dtype), lambda: _atoms(inventory, whole, dtype))


def _atoms(inventory: Inventory, whole: Collection[str], dtype: str | None) -> tuple[Atom, ...]:
    line, sizes = inventory.flat_index, tensor_sizes(inventory, dtype)
    modules, names, first, after = line.modules, line.tensors, line.first, line.after
    classes = tuple(inventory.modules.values())
    owner = inventory.owner
    owned = (
        [sizes[name] if owner.get(name, name) == name else 0 for name in names] if owner else sizes.values()
    )
    paths: list[str] = []
    class_names: list[str] = []
    alone: list[bool] = []
    borders = [0]
    place = 0
    while place < len(classes):
        beyond, start = after[place], first[place]
        if beyond > place + 1 and classes[place] not in whole:
            beyond = place + 1
            paths += names[start : first[beyond]]
            class_names += [""] * (first[beyond] - start)
            alone += [True] * (first[beyond] - start)
            borders += range(start + 1, first[beyond] + 1)
        elif start < first[beyond]:
            paths.append(modules[place])
            class_names.append(classes[place])
            alone.append(False)
            borders.append(first[beyond])
        place = beyond
    up_to = [0, *accumulate(owned)]
    nbytes = [up_to[end] - up_to[start] for start, end in pairwise(borders)]
    inside = [names[start:end] for start, end in pairwise(borders)]
    return rows(Atom, paths, class_names, inside, nbytes, alone)


def tensor_sizes(inventory: Inventory, dtype: str | None) -> Mapping[str, int]:
    """Return the bytes of every tensor at the run dtype.

    Most tensors of a model look like others: each look is worked out once.
    """
    return inventory.once(("sizes", dtype), lambda: _tensor_sizes(inventory, dtype))


def _tensor_sizes(inventory: Inventory, dtype: str | None) -> Mapping[str, int]:
    signatures, signature_of = inventory.signatures
    sizes = [
        storage_bytes(shape, run_dtype(stored, dtype, kind=kind)) for shape, stored, kind, _ in signatures
    ]
    return dict(zip(inventory.tensors, map(sizes.__getitem__, signature_of), strict=True))


def whole_blocks(inventory: Inventory, classes: frozenset[str]) -> tuple[NoSplitModule, ...]:
    """Return the outermost modules of the classes that hold a tensor, in order."""
    return inventory.once(("whole blocks", classes), lambda: tuple(_whole_blocks(inventory, classes)))


def _whole_blocks(inventory: Inventory, classes: frozenset[str]) -> Iterator[NoSplitModule]:
    line, beyond = inventory.flat_index, 0
    for place, (path, class_name) in enumerate(inventory.modules.items()):
        if place >= beyond and class_name in classes:
            beyond = line.after[place]
            yield NoSplitModule(line.first[place], line.first[beyond], path)


def torn_blocks(
    inventory: Inventory, classes: frozenset[str], borders: Iterable[int]
) -> tuple[NoSplitModule, ...]:
    """Return those of the whole blocks that have a border between two of their tensors.

    What comes after it is said to be elsewhere.

    `borders` are numbers of tensors, rising. n log n in their number.
    """
    blocks = whole_blocks(inventory, classes)
    found: dict[NoSplitModule, None] = {}
    for border in borders:
        at = bisect_left(blocks, border, key=_START) - 1
        if at >= 0 and border < blocks[at].end:
            found[blocks[at]] = None
    return tuple(found)


_START = itemgetter(0)
