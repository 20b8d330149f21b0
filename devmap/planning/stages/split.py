"""A line of modules split into contiguous stages so that the largest cost of a stage is as small as can be.

The line is split by a parametric search: a limit on the cost of a stage is feasible when the greedy split, in
which each stage takes as many modules as the limit allows, reaches the end of the line with the stages that
there are. For costs that never fall when a stage grows the greedy split is feasible whenever any split is, so
the least feasible limit is the optimum. (The method is old; M. A. Iqbal, "Approximate algorithms for
partitioning problems", Int. J. Parallel Programming 20 (1991), has it for equal processors.) Stages may
differ in what they can hold and in what they cost. With n modules, p stages and costs up to C it takes p x
log n x log C evaluations of a cost.

Host memory and disk of a node are shared by its stages, and given to them in order: where stages stream, the
split is found within those budgets, but another order of giving might allow a better one.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Line", "split_evenly", "split_in_order"]


@dataclass(frozen=True)
class Line:
    """What is to be split, and what each stage may take of it."""

    count: int
    stages: int
    cost: Callable[[int, int, int], int]
    """Of a stage that takes modules from a start to an end: `cost(stage, start, end)`. It never falls when a
    stage grows."""
    spilled: Callable[[int, int, int], int]
    """Bytes of that stage that its accelerator has no room for; they never fall when a stage grows."""
    group: Sequence[str]
    """For each stage the node whose host memory takes what spills."""
    room: Mapping[str, int]
    """Bytes that each node takes of what spills."""
    barred: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """For modules, by number, the stages that may not hold them."""
    glued: frozenset[int] = frozenset()
    """Numbers of modules that stay in the stage of the module before them."""

    @cached_property
    def _bars(self) -> tuple[list[int], ...]:
        """For each stage the modules that it may not hold, in order."""
        found: tuple[list[int], ...] = tuple([] for _ in range(self.stages))
        for at in sorted(self.barred):
            for stage in self.barred[at]:
                found[stage].append(at)
        return found

    def is_barred(self, stage: int, at: int) -> bool:
        """Return whether a stage may not hold a module."""
        return stage in self.barred.get(at, ())

    def reach(self, stage: int, start: int, limit: int | None, spent: Mapping[str, int]) -> int:
        """Return the furthest end of a stage that begins at `start`; `start` where it can take nothing.

        At least one module is left for each stage after it.
        """
        room = self.room[self.group[stage]] - spent.get(self.group[stage], 0)
        bars = self._bars[stage]
        next_bar = bisect_left(bars, start)
        low, high = start, self.count - (self.stages - 1 - stage)
        if next_bar < len(bars):
            high = min(high, bars[next_bar])
        while low < high:
            middle = (low + high + 1) // 2
            if (limit is None or self.cost(stage, start, middle) <= limit) and (
                self.spilled(stage, start, middle) <= room
            ):
                low = middle
            else:
                high = middle - 1
        while low > start and low in self.glued:
            low -= 1
        return low


def split_in_order(line: Line, limit: int | None = None) -> tuple[int, ...] | None:
    """Return the end of each stage where each takes all that it can; None where no split fits.

    A stage gives back what it took where the next one could hold nothing else.
    """
    ends: list[int] = []
    spent: dict[str, int] = {}
    start = 0
    for stage in range(line.stages):
        end = line.reach(stage, start, limit, spent)
        if end == start:
            return _with_some_given_back(line, limit)
        _spend(line, stage, start, end, spent)
        ends.append(end)
        start = end
    return tuple(ends) if start == line.count else None


def _with_some_given_back(line: Line, limit: int | None) -> tuple[int, ...] | None:
    """Return a split found from all places where each stage can begin; None where there is none.

    Those places are few stretches: from the places a to b, at each of which a stage can hold the next module,
    it can end anywhere from a + 1 to as far as it reaches from b.
    """
    beginnings: list[list[tuple[int, int]]] = []
    stretches = [(0, 0)]
    for stage in range(line.stages):
        able = [
            stretch
            for low, high in stretches
            for stretch in _stretches(
                at for at in range(low, high + 1) if at < line.count and line.reach(stage, at, limit, {}) > at
            )
        ]
        if not able:
            return None
        beginnings.append(able)
        stretches = _stretches(
            sorted(
                {
                    end
                    for low, high in able
                    for end in range(low + 1, line.reach(stage, high, limit, {}) + 1)
                    if end not in line.glued
                }
            )
        )
    if not stretches or stretches[-1][1] != line.count:
        return None
    ends = [line.count]
    for stage in range(line.stages - 1, 0, -1):
        end = ends[0]
        start = max(min(high, end - 1) for low, high in beginnings[stage] if low < end)
        if line.reach(stage, start, limit, {}) < end:
            return None
        ends.insert(0, start)
    spent: dict[str, int] = {}
    for stage, (start, end) in enumerate(pairwise((0, *ends))):
        _spend(line, stage, start, end, spent)
    return tuple(ends) if all(nbytes <= line.room[node] for node, nbytes in spent.items()) else None


def _stretches(places: Iterable[int]) -> list[tuple[int, int]]:
    """Return rising numbers as the first and last of each stretch without a gap."""
    found: list[tuple[int, int]] = []
    for at in places:
        if found and found[-1][1] == at - 1:
            found[-1] = (found[-1][0], at)
        else:
            found.append((at, at))
    return found


def split_evenly(line: Line) -> tuple[int, ...] | None:
    """Return the end of each stage so that the largest cost of a stage is least; None where no split fits.

    Of the splits with that largest cost one is taken in which the stages before the largest come near an
    equal share of what is left.

    >>> sizes = [5, 3, 3, 4, 1]
    >>> line = Line(5, 2, lambda stage, start, end: sum(sizes[start:end]), lambda *_: 0, "aa", {"a": 0})
    >>> split_evenly(line)
    (2, 5)
    """
    widest = split_in_order(line)
    if widest is None:
        return None
    starts = (0, *widest[:-1])
    high = max(
        line.cost(stage, start, end) for stage, (start, end) in enumerate(zip(starts, widest, strict=True))
    )
    low = -1  # never feasible: a stage takes at least one module, at no cost at least
    best = widest
    while high - low > 1:
        middle = (low + high) // 2
        found = split_in_order(line, middle)
        if found is None:
            low = middle
        else:
            high, best = middle, found
    return _levelled(line, high, best)


def _levelled(line: Line, limit: int, latest: tuple[int, ...]) -> tuple[int, ...]:
    """Return a split within the limit whose ends are drawn back from the latest ones towards equal shares.

    The greedy split loads the first stages to the limit and leaves the last one what remains.
    """
    earliest = _earliest(line, limit)
    if earliest is None:
        return latest
    ends: list[int] = []
    spent: dict[str, int] = {}
    start = 0
    for stage in range(line.stages - 1):
        left = line.stages - stage
        share = line.cost(stage, start, line.count) // left
        furthest = line.reach(stage, start, limit, spent)
        end = min(max(line.reach(stage, start, share, spent), earliest[stage], start + 1), furthest)
        while end < furthest and end in line.glued:
            end += 1
        if end <= start or end < earliest[stage]:
            return latest
        _spend(line, stage, start, end, spent)
        ends.append(end)
        start = end
    last = line.stages - 1
    if line.reach(last, start, limit, spent) != line.count:
        return latest
    return (*ends, line.count)


def _earliest(line: Line, limit: int) -> tuple[int, ...] | None:
    """Return for each stage the earliest end from which the stages after it can still hold the rest.

    Without regard to what nodes share.
    """
    ends = [line.count] * line.stages
    for stage in range(line.stages - 1, 0, -1):
        low, high = stage, ends[stage] - 1
        while low < high:
            middle = (low + high) // 2
            if line.reach(stage, middle, limit, {}) >= ends[stage]:
                high = middle
            else:
                low = middle + 1
        if line.reach(stage, low, limit, {}) < ends[stage]:
            return None
        ends[stage - 1] = low
    return tuple(ends)


def _spend(line: Line, stage: int, start: int, end: int, spent: dict[str, int]) -> None:
    node = line.group[stage]
    spent[node] = spent.get(node, 0) + line.spilled(stage, start, end)
