"""The tensors of a model in a line: what is below a module is one stretch of it.

Modules stand in `named_modules()` order and tensors in the order of their modules, so a whole subtree is two
numbers, and what a map says of 10^5 tensors is a few runs. What is told by run costs what the map costs, not
what the model does.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from devmap.errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["FlatIndex", "Interval", "PathInterval", "joined", "over", "value_at"]


Value = TypeVar("Value")
Interval = tuple[int, int, Value | None]
"""A run of the line: its first tensor, the first after it, and what is said of all between; None for nothing.
"""


class PathInterval(NamedTuple):
    """Neighbouring tensors of which one path decides."""

    start: int
    end: int
    """The number of the first tensor after it."""
    path: str | None
    """The nearest of the paths that were asked for; None where none is above."""


@dataclass(frozen=True)
class FlatIndex:
    """A model's modules and tensors by number."""

    modules: tuple[str, ...]
    tensors: tuple[str, ...]
    first: Sequence[int]
    """For each module the number of its first own tensor, or of the next there is; then how many tensors
    there are."""
    after: Sequence[int]
    """For each module the number of the next one that is not below it."""

    @classmethod
    def of(cls, modules: Iterable[str], tensors: Iterable[str]) -> FlatIndex:
        """Return the line of modules in `named_modules()` order and of tensors in the order of their modules.

        Linear.

        Raises:
            InventoryError: when they are in another order, or a tensor's module is not there.
        """
        order, names = tuple(modules), tuple(tensors)
        owners = [name.rpartition(".")[0] for name in names]
        first, at, count = [0], 0, len(names)
        for path in order:
            while at < count and owners[at] == path:
                at += 1
            first.append(at)
        if at < count:
            raise InventoryError(
                f"'{names[at]}' is listed apart from its module, or the inventory has no such module",
                help="an inventory has every module with a tensor at or below it, depth first, and "
                "tensors in the order of their modules",
            )
        return cls(order, names, first, _after([path.count(".") + 1 if path else 0 for path in order]))

    @cached_property
    def place(self) -> dict[str, int]:
        """The number of each module."""
        return dict(zip(self.modules, range(len(self.modules)), strict=True))

    @cached_property
    def number(self) -> dict[str, int]:
        """The number of each tensor."""
        return dict(zip(self.tensors, range(len(self.tensors)), strict=True))

    def span(self, path: str) -> tuple[int, int]:
        """Return the first tensor at or below a module, or a tensor itself, and the first after it.

        Raises:
            KeyError: when the model has no such path.
        """
        place = self.place.get(path)
        if place is None:
            number = self.number[path]
            return number, number + 1
        return self.first[place], self.first[self.after[place]]

    def children(self, place: int) -> Iterator[int]:
        """Yield the numbers of the modules directly below a module."""
        child, end = place + 1, self.after[place]
        while child < end:
            yield child
            child = self.after[child]

    def runs(self, paths: Iterable[str]) -> list[PathInterval]:
        """Return the whole line in runs, each decided by the longest of the paths at or above it.

        Paths that the model lacks do not count.

        n log n in the paths.
        """
        spans = sorted(
            self._spans(paths)
        )  # an outer span before those inside; of equal ones the longer path last
        begins = [start for start, *_ in spans[1:]]
        begins.append(len(self.tensors))
        found: list[PathInterval] = []
        outer: list[tuple[int, str]] = []
        at = 0
        for (start, below_zero, _, path), next_begins in zip(spans, begins, strict=False):
            end = -below_zero
            while outer and outer[-1][0] <= start:
                until, decider = outer.pop()
                if at < until:
                    found.append(PathInterval(at, until, decider))
                    at = until
            if at < start:
                found.append(PathInterval(at, start, outer[-1][1] if outer else None))
                at = start
            if end > next_begins:  # paths inside come first
                outer.append((end, path))
            elif at < end:
                found.append(PathInterval(at, end, path))
                at = end
        while outer:
            until, decider = outer.pop()
            if at < until:
                found.append(PathInterval(at, until, decider))
                at = until
        if at < len(self.tensors):
            found.append(PathInterval(at, len(self.tensors), None))
        return found

    def _spans(self, paths: Iterable[str]) -> Iterator[tuple[int, int, int, str]]:
        """Yield where each path lies that the model has.

        First tensor, the negative of the first after it, the number of the module, the path.
        """
        first, after, place, number = self.first, self.after, self.place, self.number
        for path in paths:
            at = place.get(path)
            if at is not None:
                yield first[at], -first[after[at]], at, path
            elif path in number:
                yield number[path], -number[path] - 1, len(place), path


def over(runs: Sequence[Interval[Value]], start: int, end: int) -> Iterator[Interval[Value]]:
    """Yield the parts of runs that cover the whole line which lie in a stretch of it."""
    at = bisect_right(runs, start, key=_END)
    while at < len(runs) and runs[at][0] < end:
        low, high, value = runs[at]
        yield max(low, start), min(high, end), value
        at += 1


def joined(runs: Iterable[tuple[int, int, Value]]) -> Iterator[tuple[int, int, Value]]:
    """Runs that touch and say the same as one."""
    last: tuple[int, int, Value] | None = None
    for run in runs:
        if last is not None and last[1] == run[0] and last[2] == run[2]:
            last = (last[0], run[1], run[2])
            continue
        if last is not None:
            yield last
        last = run
    if last is not None:
        yield last


_END = itemgetter(1)


def value_at(runs: Sequence[Interval[Value]], number: int) -> Value | None:
    """Return what runs that cover the whole line say of one tensor."""
    return runs[bisect_right(runs, number, key=_END)][2]


def _after(depths: Sequence[int]) -> list[int]:
    """Return for each module the next one that is not below it, from the modules' depths in order."""
    after = list(range(1, len(depths) + 1))
    pending: list[int] = []
    open_depths: list[int] = []
    before = -1
    for number, depth in enumerate(depths):
        if depth <= before:
            while open_depths and open_depths[-1] >= depth:
                open_depths.pop()
                after[pending.pop()] = number
        pending.append(number)
        open_depths.append(depth)
        before = depth
    for number in pending:
        after[number] = len(depths)
    return after
