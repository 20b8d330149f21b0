"""The best contiguous runs over accelerators in the best order of them, where everything fits: exact.

A *stage* is one device with one run of the order. Devices that cost the same, may hold the same and hold the
same already are one class, so a set of used devices is a count for each class: prod(count + 1) sets instead
of 2^devices. Over these sets

- latency: f[set, last][k] is the least time of the first k units with these devices, the last of them `last`.
  A run i..k on the next device adds its prefix-sum difference C[k] - C[i], and the boundary between both
  devices, so that f[set + d, d][k] is the least of f[set, last][i] - C[i] over a window of i that only moves
  forward: a monotone queue, O(n) for a transition.
- throughput: g[set] is the furthest position that devices of this set reach when no stage takes longer than
  T. Reaching further never hurts, so each set keeps one number; bisection on T over whole femtoseconds.

Both are the dynamic programs over subsets for chains on heterogeneous processors in free order (NP-complete
in general: A. Pinar, E. Tabak, C. Aykanat, "One-dimensional partitioning for heterogeneous systems", JPDC 68
(2008)), exact for contiguous runs. Where there are too many sets the order given is kept and the same
recurrences run over it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from devmap.config.values.strategy import Objective

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Stage", "StageRuns", "stages"]

_MOST_STEPS = 4_000_000
"""Elementary steps of the dynamic program past which the order of devices is not searched: a few seconds."""

_State = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """One device as a stage may use it; equal stages are one class."""

    limit: int
    """Bytes that its run may take."""
    compute: tuple[int, ...]
    """Femtoseconds of each unit."""
    boundary: int = 0
    """Femtoseconds to bring activations here, or away."""
    excluded: tuple[int, ...] = ()
    """Positions of units that it must not hold, sorted."""
    base: int = 0
    """Femtoseconds of what it computes already."""


@dataclass(frozen=True, slots=True)
class StageRuns:
    """Runs in order: the device's place in the list given, and the end of its run."""

    runs: tuple[tuple[int, int], ...]
    is_order_free: bool


def stages(loads: Sequence[int], devices: Sequence[Stage], objective: Objective) -> StageRuns | None:
    """Return the best contiguous runs.

    They have the least sum of times (latency), or the least longest stage (throughput).

    None where none fit.

    `loads` are bytes of the units in order. Ties go to fewer devices, then to the devices and the fuller runs
    in front.
    """
    if not loads:
        return StageRuns((), is_order_free=True)
    if not devices:
        return None
    kinds = _kinds(devices)
    sets = prod(len(kind) + 1 for kind in kinds)
    # 400: some 60 steps of the bisection, with two binary searches in each.
    steps = sets * len(kinds) ** 2 * (len(loads) if objective is Objective.LATENCY else 400)
    is_order_free = steps <= _MOST_STEPS
    search = _StageSearch(
        loads,
        devices,
        kinds if is_order_free else [[at] for at in range(len(devices))],
        is_order_free=is_order_free,
    )
    runs = search.least_sum() if objective is Objective.LATENCY else search.least_longest()
    return None if runs is None else StageRuns(runs, is_order_free)


def _kinds(devices: Sequence[Stage]) -> list[list[int]]:
    found: dict[Stage, list[int]] = {}
    for at, device in enumerate(devices):
        found.setdefault(device, []).append(at)
    return list(found.values())


class _StageSearch:
    """The prefix sums that both programs read; a class because every step reads them all."""

    def __init__(
        self, loads: Sequence[int], devices: Sequence[Stage], kinds: list[list[int]], *, is_order_free: bool
    ) -> None:
        self.n = len(loads)
        self.kinds = kinds
        self.devices = [devices[kind[0]] for kind in kinds]
        self.is_order_free = is_order_free
        self.bytes = [0, *accumulate(loads)]
        alike: dict[int, list[int]] = {}
        self.time = [
            alike.setdefault(id(device.compute), [0, *accumulate(device.compute)]) for device in self.devices
        ]

    def next_states(self, state: _State) -> Iterator[tuple[int, _State]]:
        """Yield the classes that may come next.

        In a kept order only later devices: the state is how many are past.
        """
        if self.is_order_free:
            for kind, members in enumerate(self.kinds):
                if state[kind] < len(members):
                    yield kind, (*state[:kind], state[kind] + 1, *state[kind + 1 :])
        else:
            for kind in range(state[0], len(self.kinds)):
                yield kind, (kind + 1,)

    def start(self) -> _State:
        return (0,) * len(self.kinds) if self.is_order_free else (0,)

    def least_sum(self) -> tuple[tuple[int, int], ...] | None:
        """Return the runs with the least sum of times."""
        infinite = 1 << 200
        first = (self.start(), -1)
        times: dict[tuple[_State, int], list[int]] = {first: [0] + [infinite] * self.n}
        came: dict[tuple[_State, int], list[tuple[tuple[_State, int], int] | None]] = {}
        best: tuple[int, tuple[_State, int]] | None = None
        layer = [first]
        while layer:
            following: dict[tuple[_State, int], None] = {}
            for node in layer:
                state, last = node
                for kind, after in self.next_states(state):
                    reached = (after, kind)
                    costs = times.setdefault(reached, [infinite] * (self.n + 1))
                    parents = came.setdefault(reached, [None] * (self.n + 1))
                    cut = 0 if last < 0 else max(self.devices[last].boundary, self.devices[kind].boundary)
                    self._extend(times[node], kind, cut, node, costs, parents)
                    following[reached] = None
            layer = list(following)
            for node in layer:
                if times[node][self.n] < infinite and (best is None or times[node][self.n] < best[0]):
                    best = (times[node][self.n], node)
        return None if best is None else self._runs(best[1], came)

    def _extend(
        self,
        before: Sequence[int],
        kind: int,
        cut: int,
        node: tuple[_State, int],
        costs: list[int],
        parents: list[tuple[tuple[_State, int], int] | None],
    ) -> None:
        """Take one more run on a device of this class, for every end.

        costs[end] becomes the least of before[start] + cut + time[end] - time[start] over starts whose run
        fits. time[end] is the same for all of them, so the least `value` wins: a monotone queue holds the
        starts that can still win, the best in front, and each enters and leaves it once.
        """
        device, time, nbytes = self.devices[kind], self.time[kind], self.bytes
        infinite = 1 << 200
        excluded = deque(device.excluded)
        queue: deque[tuple[int, int]] = deque()
        earliest = 0
        for end in range(1, self.n + 1):
            start = end - 1
            if before[start] < infinite:
                value = before[start] - time[start] + cut
                # An earlier start that is no better can never win again: its run is longer and it leaves the
                # window first.
                while queue and queue[-1][0] >= value:
                    queue.pop()
                queue.append((value, start))
            while excluded and excluded[0] < end:
                # A run to here must not hold that unit, so it begins behind it.
                earliest = excluded.popleft() + 1
            while queue and (queue[0][1] < earliest or nbytes[end] - nbytes[queue[0][1]] > device.limit):
                queue.popleft()
            if queue and queue[0][0] + time[end] < costs[end]:
                costs[end] = queue[0][0] + time[end]
                parents[end] = (node, queue[0][1])

    def _runs(
        self,
        node: tuple[_State, int],
        came: dict[tuple[_State, int], list[tuple[tuple[_State, int], int] | None]],
    ) -> tuple[tuple[int, int], ...]:
        found: list[tuple[int, int]] = []
        end = self.n
        while node[1] >= 0:
            found.append((node[1], end))
            parent = came[node][end]
            assert parent is not None, "every end that is reached has a run before it"
            node, end = parent
        return self._with_places(found[::-1])

    def _with_places(self, runs: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        used = [0] * len(self.kinds)
        found = []
        for kind, end in runs:
            found.append((self.kinds[kind][used[kind]], end))
            used[kind] += 1
        return tuple(found)

    def least_longest(self) -> tuple[tuple[int, int], ...] | None:
        """Return the runs with the least longest stage."""
        # No stage takes longer than the slowest device with everything on it; if not even that fits, bytes
        # are short.
        high = max(device.base + time[-1] for device, time in zip(self.devices, self.time, strict=True))
        if self._probe(high) is None:
            return None
        low = max(device.base for device in self.devices)
        while low < high:
            middle = (low + high) // 2
            if self._probe(middle) is None:
                low = middle + 1
            else:
                high = middle
        return self._probe(high)

    def _probe(self, longest: int) -> tuple[tuple[int, int], ...] | None:
        """Runs of which no stage takes longer, if there are any: how far each set of devices gets."""
        reach: dict[_State, tuple[int, tuple[tuple[int, int], ...]]] = {self.start(): (0, ())}
        layer = [self.start()]
        while layer:
            following: dict[_State, None] = {}
            for state in layer:
                position, runs = reach[state]
                for kind, after in self.next_states(state):
                    end = self._furthest(kind, position, longest)
                    # Reaching further never hurts, so the furthest of all orders of these devices is all
                    # that is kept.
                    if after not in reach or end > reach[after][0]:
                        reach[after] = (end, (*runs, (kind, end)) if end > position else runs)
                    if end == self.n:
                        return self._with_places(reach[after][1]) if reach[after][0] == end else None
                    following[after] = None
            layer = list(following)
        return None

    def _furthest(self, kind: int, start: int, longest: int) -> int:
        device, time = self.devices[kind], self.time[kind]
        if device.limit < 0 or device.base > longest:
            return start
        end = min(
            bisect_right(self.bytes, self.bytes[start] + device.limit, start),
            bisect_right(time, time[start] + longest - device.base, start),
        )
        at = bisect_left(device.excluded, start)
        return min(end - 1, device.excluded[at]) if at < len(device.excluded) else end - 1
