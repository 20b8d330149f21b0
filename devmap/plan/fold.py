"""Device maps in few keys: whole subtrees that live on one device stand under one name."""

from __future__ import annotations

from bisect import bisect_right
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from devmap.inventory.flat_index import joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.inventory.model import Inventory

__all__ = ["covers", "fold_device_map", "runs_of"]

Value = TypeVar("Value")


def runs_of(values: Iterable[Value]) -> list[tuple[int, int, Value]]:
    """Neighbours with equal values as runs: start, end, value."""
    found: list[tuple[int, int, Value]] = []
    start = 0
    for value, members in groupby(values):
        end = start + sum(1 for _ in members)
        found.append((start, end, value))
        start = end
    return found


def fold_device_map(runs: Iterable[tuple[int, int, Value]], inventory: Inventory) -> dict[str, Value]:
    """Return the map with the fewest keys of which no two overlap, from runs of tensors with one value each.

    `runs` hold the number of the first tensor, that of the first after it and the value; they are in the
    model's order. A module whose tensors all have one value becomes one key, the highest such module; a
    tensor that sits directly on a mixed module is a key of its own; `{"": value}` where all are equal. No key
    is a prefix of another, so that the first match is the longest match too, whoever reads it. Keys are in
    the model's order. Tensors in no run (a subtree that a partial map leaves out) get no key, and no key
    stands above them. It goes down only where runs meet, so that it costs what the map does and not what the
    model does.
    """
    line = inventory.flat_index
    runs = list(joined(runs))
    starts = [start for start, _, _ in runs]
    folded: dict[str, Value] = {}

    def run_over(start: int, end: int) -> tuple[int, int, Value] | None:
        """Return the run that holds a whole stretch."""
        at = bisect_right(starts, start) - 1
        return runs[at] if at >= 0 and end <= runs[at][1] else None

    pending = [0] if line.modules else []
    while pending:
        place = pending.pop()
        start, end = line.first[place], line.first[line.after[place]]
        run = run_over(start, end)
        if run is not None:
            folded[line.modules[place]] = run[2]
            continue
        for number in range(start, line.first[place + 1]):
            run = run_over(number, number + 1)
            if run is not None:
                folded[line.tensors[number]] = run[2]
        pending += reversed(list(line.children(place)))
    return folded


def covers(device_map: Mapping[str, Value], name: str) -> Value | None:
    """Return the value of the longest key that names a module or tensor, or a module above it.

    None where no key does.
    """
    path = name
    while path not in device_map:
        if not path:
            return None
        path = path.rpartition(".")[0]
    return device_map[path]
