"""Splits of a sequence of loads into contiguous runs, one a device in a given order.

Pure, exact, on integers.

A `LoadRow` holds the loads of the units in order as prefix sums; a `Bin` is one device: what it may take,
what already lies on it, and which positions it must not hold. Everything rests on `_reach`: how far one
device gets from a position, a bisection in the prefix sums. It grows with the position and with the device's
limit, so that

- filling each device as far as it goes reaches as far as any contiguous split can (taking more never hurts:
  exchange the first run of any split for the longer one, and the rest still fits);
- the positions at which the first j devices can end are all of 0 .. the greedy end, and those from which the
  rest can be finished are all of the backward greedy end .. n. A cut may stand anywhere in between.

The smallest largest load is found by parametric search over whole bytes with that greedy probe: O(log(bytes)
x devices x log n). See A. Pinar, C. Aykanat, "Fast optimal load balancing algorithms for 1D partitioning",
JPDC 64 (2004), for probes and their proof; the limits per device and the tie-breaks are ours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Bin", "LoadRow", "balanced_split", "fill", "low_first_split"]

_MOST_POSITIONS = 20_000
"""Positions of cuts that are compared for evenness in one split; beyond it (a huge unit that leaves the
others much room) each cut goes to the position nearest to an even share of what is left."""
_MOST_CHOICES = 64
"""Choices of devices that are compared for evenness where fewer devices than there are reach the optimum."""


@dataclass(frozen=True)
class LoadRow:
    """Loads of units in order, as prefix sums: `sums[i]` bytes stand before position i."""

    sums: tuple[int, ...]

    @classmethod
    def of(cls, loads: Iterable[int]) -> LoadRow:
        """Return the row of these loads, none negative."""
        return cls((0, *accumulate(loads)))

    def __len__(self) -> int:
        return len(self.sums) - 1

    def load(self, start: int, end: int) -> int:
        """Return the bytes of the units from `start` up to but not including `end`."""
        return self.sums[end] - self.sums[start]


@dataclass(frozen=True)
class Bin:
    """One device: `limit` bytes for the run and what is already there (`base`).

    Positions of units it must not hold, sorted.
    """

    limit: int
    base: int = 0
    excluded: tuple[int, ...] = ()

    @property
    def room(self) -> int:
        """Bytes that a run may take; negative where the base alone is too much."""
        return self.limit - self.base

    def capped(self, largest: int) -> Bin:
        """Return the same device, not above `largest` bytes with its base."""
        return self if self.limit <= largest else Bin(largest, self.base, self.excluded)


def fill(row: LoadRow, bins: Sequence[Bin], start: int = 0) -> list[int]:
    """Return the end of each device's run when each takes all that fits, in order.

    The last end is n if and only if a contiguous split fits.

    >>> fill(LoadRow.of([4, 3, 2, 5]), [Bin(10), Bin(10)])  # 4 + 3 + 2, then 5
    [3, 4]
    """
    ends = []
    for one in bins:
        start = _reach(row, one, start)
        ends.append(start)
    return ends


def balanced_split(row: LoadRow, bins: Sequence[Bin]) -> list[int] | None:
    """Return the end of each device's run in the split with the smallest possible largest load.

    Base included.

    Among equal optima the fewest cuts, then the most even (the smallest sum of squared loads), then devices
    in order. None where no contiguous split fits.

    >>> balanced_split(LoadRow.of([4, 3, 2, 5]), [Bin(10), Bin(10)])  # 4 + 3, then 2 + 5: no split is below 7
    [2, 4]
    """
    n = len(row)
    if not n:
        return [0] * len(bins)
    if not bins or fill(row, bins)[-1] < n:
        return None
    average = -(-(row.sums[n] + sum(one.base for one in bins)) // len(bins))
    low = max(average, *(one.base for one in bins))
    high = max(low, *(one.limit for one in bins))
    while low < high:
        middle = (low + high) // 2
        if fill(row, [one.capped(middle) for one in bins])[-1] == n:
            high = middle
        else:
            low = middle + 1
    return _most_even(row, [one.capped(high) for one in bins])


def low_first_split(row: LoadRow, bins: Sequence[Bin]) -> list[int] | None:
    """Return the end of each run when the first device takes the fewest bytes that let the rest fit.

    The rest is balanced. None where no contiguous split fits.

    >>> low_first_split(LoadRow.of([4, 3, 2, 5]), [Bin(10), Bin(10)])  # 3 + 2 + 5 just fit on the second
    [1, 4]
    """
    if not bins or fill(row, bins)[-1] < len(row):
        return None
    first, rest = bins[0], bins[1:]
    if not rest:
        return [len(row)]
    low, high = 0, _reach(row, first, 0)
    while low < high:
        middle = (low + high) // 2
        if fill(row, rest, middle)[-1] == len(row):
            high = middle
        else:
            low = middle + 1
    tail = LoadRow.of(row.load(i, i + 1) for i in range(low, len(row)))
    shifted = [Bin(one.limit, one.base, tuple(at - low for at in one.excluded if at >= low)) for one in rest]
    ends = balanced_split(tail, shifted)
    assert ends is not None, "the search ended where the rest fits"
    return [low, *(low + end for end in ends)]


def _reach(row: LoadRow, one: Bin, start: int) -> int:
    """Return how far a device gets from a position: the longest run that fits and holds nothing excluded.

    Units of no bytes go along.
    """
    if one.room < 0:
        return start
    end = bisect_right(row.sums, row.sums[start] + one.room, start) - 1
    if one.excluded:
        at = bisect_left(one.excluded, start)
        if at < len(one.excluded):
            end = min(end, one.excluded[at])
    return end


def _back(row: LoadRow, one: Bin, end: int) -> int:
    """Return the first position from which a device gets to `end`."""
    if one.room < 0:
        return end
    start = bisect_left(row.sums, row.sums[end] - one.room, 0, end + 1)
    if one.excluded:
        at = bisect_left(one.excluded, end) - 1
        if at >= 0:
            start = max(start, one.excluded[at] + 1)
    return start


def _most_even(row: LoadRow, bins: Sequence[Bin]) -> list[int]:
    """Choose the most even of the splits that fit.

    The fewest runs, then the smallest sum of squared loads, then the first devices.
    """
    chosen = _fewest(row, bins)
    choices: Iterable[tuple[int, ...]] = [tuple(chosen)]
    if len(chosen) < len(bins) and len(set(bins)) > 1:
        choices = _choices(len(bins), len(chosen), tuple(chosen))
    best: tuple[int, tuple[int, ...], list[int]] | None = None
    for choice in choices:
        used = [bins[at] for at in choice]
        if fill(row, used)[-1] < len(row):
            continue
        ends = _cuts(row, used)
        idle = sum(one.base**2 for at, one in enumerate(bins) if at not in choice)
        key = (idle + _squares(row, used, ends), choice, ends)
        if best is None or key < best:
            best = key
    assert best is not None, "the fewest devices were found by filling them"
    return _spread(best[1], best[2], len(bins))


def _choices(bins: int, used: int, first: tuple[int, ...]) -> list[tuple[int, ...]]:
    found = [first]
    for choice in combinations(range(bins), used):
        if len(found) > _MOST_CHOICES:
            break
        if choice != first:
            found.append(choice)
    return found


def _fewest(row: LoadRow, bins: Sequence[Bin]) -> list[int]:
    """Return the fewest devices whose runs reach the end, the earliest such devices.

    How far k of the first d devices get.
    """
    n = len(row)
    reached: list[tuple[int, tuple[int, ...]]] = [(0, ())]
    for at, one in enumerate(bins):
        longer = [(_reach(row, one, end), (*used, at)) for end, used in reached]
        reached = [
            max((pair for pair in pairs if pair is not None), key=lambda pair: pair[0])
            for pairs in zip([*reached, None], [None, *longer], strict=True)
        ]
    return list(next(used for end, used in reached if end == n))


def _cuts(row: LoadRow, bins: Sequence[Bin]) -> list[int]:
    """Return the ends of the most even split over exactly these devices, each of which is needed."""
    latest = fill(row, bins)
    earliest = [len(row)]
    for one in reversed(bins[1:]):
        earliest.append(_back(row, one, earliest[-1]))
    earliest.reverse()
    if sum(last - first + 1 for first, last in zip(earliest, latest, strict=True)) > _MOST_POSITIONS:
        return _near_even(row, bins, earliest, latest)
    costs, ends_from = {0: 0}, []
    for one, first, last in zip(bins, earliest, latest, strict=True):
        costs, came_from = _layer(row, one, costs, (first, last))
        ends_from.append(came_from)
    ends, end = [], len(row)
    for came_from in reversed(ends_from):
        ends.append(end)
        end = came_from[end]
    return ends[::-1]


def _layer(
    row: LoadRow, one: Bin, costs: dict[int, int], window: tuple[int, int]
) -> tuple[dict[int, int], dict[int, int]]:
    """Return the least sum of squares at each end in the window, and the start it comes from.

    The square of a run's load is convex in it, so the best start never falls while the end rises (the
    quadrangle inequality; runs that do not fit cost infinitely and keep it): divide and conquer, O(positions
    x log positions).
    """
    starts = sorted(costs)
    best_cost: dict[int, int] = {}
    best_start: dict[int, int] = {}
    pending = [(window[0], window[1], 0, len(starts) - 1)]
    while pending:
        first, last, low, high = pending.pop()
        if first > last:
            continue
        end = (first + last) // 2
        nearest = bisect_left(starts, _back(row, one, end))
        best, best_at = None, nearest
        for at in range(max(low, nearest), min(high, bisect_right(starts, end) - 1) + 1):
            cost = costs[starts[at]] + (one.base + row.load(starts[at], end)) ** 2
            if best is None or cost <= best:
                best, best_at = cost, at
        assert best is not None, "every end in the window can be reached"
        best_cost[end], best_start[end] = best, starts[best_at]
        pending += [(first, end - 1, low, best_at), (end + 1, last, best_at, high)]
    return best_cost, best_start


def _near_even(
    row: LoadRow, bins: Sequence[Bin], earliest: Sequence[int], latest: Sequence[int]
) -> list[int]:
    ends: list[int] = []
    start = 0
    for at, one in enumerate(bins):
        left = bins[at:]
        share = (row.sums[-1] - row.sums[start] + sum(other.base for other in left)) // len(left) - one.base
        end = bisect_right(row.sums, row.sums[start] + max(0, share), start) - 1
        end = min(max(end, earliest[at], start), latest[at], _reach(row, one, start))
        ends.append(end)
        start = end
    return ends


def _squares(row: LoadRow, bins: Sequence[Bin], ends: Sequence[int]) -> int:
    return sum(
        (one.base + row.load(start, end)) ** 2
        for one, start, end in zip(bins, [0, *ends], ends, strict=False)
    )


def _spread(choice: Sequence[int], ends: Sequence[int], bins: int) -> list[int]:
    """Return the ends over all devices: one that is not chosen ends where the one before it does."""
    by_device = dict(zip(choice, ends, strict=True))
    found, end = [], 0
    for at in range(bins):
        end = by_device.get(at, end)
        found.append(end)
    return found
