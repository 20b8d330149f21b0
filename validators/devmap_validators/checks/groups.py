"""Many tensor names as a few lines for people: `model.layers.12 to model.layers.31, 180 tensors, 21.4 GB`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap_validators.checks.assignment import run_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from devmap.inventory.model import Inventory

__all__ = ["Group", "counted", "fold", "fold_paths"]


@dataclass(frozen=True, slots=True)
class Group:
    """A run of modules or tensors."""

    first: str
    last: str
    tensors: tuple[str, ...]
    nbytes: int
    """At the run dtype, a tied tensor once."""

    def __str__(self) -> str:
        return (
            f"{_span(self.first, self.last)}, {counted(len(self.tensors), 'tensor')}, "
            f"{format_bytes(self.nbytes)}"
        )


def fold(inventory: Inventory, names: Iterable[str], *, dtype: str | None = None) -> tuple[Group, ...]:
    """Return the fewest lines that say which tensors `names` are.

    Whole modules where all of one is meant, runs where numbers follow.

    Linear in the model's modules and tensors.
    """
    wanted = frozenset(names)
    tensors_by_path: dict[str, tuple[str, ...]] = {}
    whole = _whole_modules(inventory, wanted)
    pending = [""]
    while pending:
        path = pending.pop()
        if path in whole:
            tensors_by_path[path] = _inside(inventory, path)
            continue
        tensors_by_path.update(
            {tensor.name: (tensor.name,) for tensor in inventory.own_tensors[path] if tensor.name in wanted}
        )
        pending += reversed(inventory.children[path])
    return tuple(
        Group(run[0], run[-1], inside, run_bytes(inventory, inside, dtype))
        for run in fold_paths(tensors_by_path)
        if (inside := tuple(name for path in run for name in tensors_by_path[path]))
    )


def fold_paths(paths: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Paths in runs whose first number counts up by one, in the order in which each run begins.

    >>> fold_paths(["h.0.mlp", "h.1.mlp", "head", "h.3.mlp"])
    (('h.0.mlp', 'h.1.mlp'), ('h.3.mlp',), ('head',))
    """
    runs: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    last_number: dict[tuple[str, str], int] = {}
    for path in paths:
        segments = path.split(".")
        place = next((place for place, segment in enumerate(segments) if segment.isdecimal()), None)
        if place is None:
            runs[path, ""].append([path])
            continue
        template = (".".join(segments[:place]), ".".join(segments[place + 1 :]) + ".#")
        number = int(segments[place])
        if last_number.get(template) == number - 1:
            runs[template][-1].append(path)
        else:
            runs[template].append([path])
        last_number[template] = number
    return tuple(tuple(run) for found in runs.values() for run in found)


def counted(count: int, word: str) -> str:
    """Return a number with its noun: `1 tensor`, `1,200 tensors`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _span(first: str, last: str) -> str:
    if not first:
        return "the whole model"
    return f"'{first}'" if first == last else f"'{first}' to '{last}'"


def _whole_modules(inventory: Inventory, wanted: frozenset[str]) -> frozenset[str]:
    """Modules of which every tensor is wanted, and that have one."""
    missing: dict[str, int] = dict.fromkeys(inventory.modules, 0)
    present: dict[str, int] = dict.fromkeys(inventory.modules, 0)
    for path in reversed(list(inventory.modules)):
        own = inventory.own_tensors[path]
        inside = sum(tensor.name in wanted for tensor in own)
        present[path] += inside
        missing[path] += len(own) - inside
        if path:
            parent = path.rpartition(".")[0]
            present[parent] += present[path]
            missing[parent] += missing[path]
    return frozenset(path for path in inventory.modules if present[path] and not missing[path])


def _inside(inventory: Inventory, root: str) -> tuple[str, ...]:
    found: list[str] = []
    pending = [root]
    while pending:
        path = pending.pop()
        found += [tensor.name for tensor in inventory.own_tensors[path]]
        pending += reversed(inventory.children[path])
    return tuple(found)
