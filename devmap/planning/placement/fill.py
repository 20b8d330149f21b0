"""Homes for all units, given what each accelerator is to keep free for streaming.

Accelerators first. Each strategy's units are split into contiguous runs over what is left of the
accelerators; where they do not all fit, the longest run of the order that does stays and the rest goes down:
cpu, then disk, in order again. Precisely:

- Filling goes forward only. When a unit is too big for what is left on a device, later devices take over, and
  no later unit goes back, however small.
- A unit that none of the devices from there on can hold, even empty, is stepped round: it goes down by itself
  and the filling goes on behind it. Otherwise one huge embedding at the head would leave every accelerator
  empty.
- The same two rules hold for cpu and disk.
- Only where a unit is left without any place do gaps count: it goes to the first device, in tier order, that
  still has room. A plan is better than none, and the reasons name it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU
from devmap.config.values.strategy import Strategy
from devmap.planning.placement.partition import Bin, LoadRow, balanced_split, fill, low_first_split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["FreeCapacity", "LowerTiers", "fill_lower_tiers", "place_on_accelerators"]


@dataclass(frozen=True, slots=True)
class FilledDevice:
    """Units in order that fill one device, and the bytes that it had for them."""

    device: Device
    units: Sequence[int]
    room: int


class FreeCapacity:
    """What is left on each accelerator while units are placed.

    A class because every step takes from the same rooms.
    """

    def __init__(self, problem: PlacementProblem, reserve: Mapping[Device, int]) -> None:
        self.problem = problem
        self.reserve = reserve
        self.used = dict.fromkeys(problem.limits, 0)
        self.homes: list[Device | None] = [None] * len(problem.units)
        self.runs: list[FilledDevice] = []
        """What each device holds when it is filled in order, whatever evenness makes of it afterwards."""
        if problem.one_strategy is not None:
            return
        own = {device: device for device in problem.limits}
        for at, unit in enumerate(problem.units):
            if unit[1] is not None:
                device = own[unit[1]]
                self.homes[at] = device
                self.used[device] += problem.resident_bytes[at] if device.is_accelerator else 0

    def left(self, device: Device) -> int:
        """Return the bytes that nothing takes; the reserve is not taken."""
        return self.problem.limits[device] - self.used[device]


def place_on_accelerators(rooms: FreeCapacity) -> list[int]:
    """Place what the accelerators hold; return the units that go down, in order."""
    below: list[int] = []
    for strategy, members in _by_strategy(rooms.problem).items():
        below += _place(rooms, members, strategy)
    return sorted(below)


def _by_strategy(problem: PlacementProblem) -> dict[Strategy, Sequence[int]]:
    """Units that are not pinned.

    By the strategy that places them, each strategy where its first unit stands.
    """
    if problem.one_strategy is not None:
        return {problem.one_strategy: range(len(problem.units))}
    found: dict[Strategy, list[int]] = {}
    for at, unit in enumerate(problem.units):
        if unit[1] is None:
            found.setdefault(unit[2] or Strategy.AUTO, []).append(at)
    if Strategy.SEQUENTIAL in found and Strategy.AUTO in found:
        found[Strategy.AUTO] = sorted(found[Strategy.AUTO] + found.pop(Strategy.SEQUENTIAL))
    return {**found}


def _place(rooms: FreeCapacity, members: Sequence[int], strategy: Strategy) -> list[int]:
    devices = rooms.problem.accelerators
    if not devices:
        return list(members)
    units, loads = rooms.problem.units, rooms.problem.resident_bytes
    row = LoadRow.of(loads if len(members) == len(loads) else [loads[at] for at in members])
    excluded = (
        []
        if rooms.problem.one_strategy is not None
        else [i for i, at in enumerate(members) if units[at].excluded]
    )
    bins = [
        Bin(
            rooms.problem.limits[device] - rooms.reserve.get(device, 0),
            rooms.used[device],
            tuple(i for i in excluded if device in units[members[i]].excluded),
        )
        for device in devices
    ]
    runs = _filled(row, bins, [rooms.left(device) for device in devices])
    chosen: Sequence[int] = range(runs[0][1], runs[-1][2]) if runs else ()
    if sum(end - start for _, start, end in runs) < len(chosen):
        chosen = [i for _, start, end in runs for i in range(start, end)]
    skipped = _without(members, chosen)
    rooms.runs += [
        FilledDevice(devices[d], members[start:end], rooms.left(devices[d])) for d, start, end in runs
    ]
    if strategy in {Strategy.BALANCED, Strategy.BALANCED_LOW_0}:
        runs = _balanced(row, bins, chosen, low_first=strategy is Strategy.BALANCED_LOW_0)
    else:
        # An even split says how many units each device holds of those the fill chose; any other strategy
        # keeps the fill, whose runs count places among all members.
        chosen = range(len(members))
    by_device: dict[int, list[int]] = {}
    for d, start, end in runs:
        by_device.setdefault(d, []).extend([members[i] for i in chosen[start:end]])
    for d, held in by_device.items():
        for at in held:
            rooms.homes[at] = devices[d]
        rooms.used[devices[d]] += sum([loads[at] for at in held])
    return skipped


def _without(members: Sequence[int], chosen: Sequence[int]) -> list[int]:
    """Return the members that are not at the chosen places."""
    if isinstance(chosen, range):
        return [*members[: chosen.start], *members[chosen.stop :]] if chosen else list(members)
    inside = set(chosen)
    return [at for i, at in enumerate(members) if i not in inside]


def _filled(row: LoadRow, bins: Sequence[Bin], whole: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the runs (device, start, end) of a forward fill.

    `whole` is what each device could hold if only pinned units lay there.

    A step either goes on to the next device or steps round a unit: O((units stepped round + devices) x log
    units).

    Loads 3 9 2 2 4 over devices that hold 5, 4 and 6: 3 goes to device 0; 9 fits nowhere, even empty, and is
    stepped round; 2 still fits beside 3; the next 2 goes to device 1; 4 is too much for what is left there
    and opens device 2. The runs are (0, 0, 1), (0, 2, 3), (1, 3, 4), (2, 4, 5); unit 1 goes down.
    """
    # rest[d]: one more than the most that device d or a later one holds when nothing but pins lies there, so
    # that `load < rest[d]` says in one comparison whether any of them could hold a unit.
    rest = [0] * (len(bins) + 1)
    for d in reversed(range(len(bins))):
        rest[d] = max(rest[d + 1], whole[d] + 1)
    runs: list[tuple[int, int, int]] = []
    n, at, d = len(row), 0, 0
    used = 0
    while d < len(bins) and at < n:
        one = bins[d]
        end = fill(row, [Bin(one.limit, one.base + used, one.excluded)], at)[-1]
        if end > at:
            runs.append((d, at, end))
            used += row.load(at, end)
            at = end
            continue
        load = row.load(at, at + 1)
        later = load < rest[d + 1] and any(
            load <= whole[e] and at not in bins[e].excluded for e in range(d + 1, len(bins))
        )
        here = load <= whole[d] and at not in one.excluded
        # A unit that a later device holds closes this one: filling never goes back. One that only this device
        # would hold, were it empty, closes it too, and is stepped round where others follow.
        if later or here:
            d, used = d + 1, 0
        if not later and (not here or d < len(bins)):
            at += 1
    return runs


def _balanced(
    row: LoadRow, bins: Sequence[Bin], chosen: Sequence[int], *, low_first: bool
) -> list[tuple[int, int, int]]:
    """Runs over the places of `chosen`, the units that a forward fill holds.

    Split as evenly as the strategy says.
    """
    kept = row if len(chosen) == len(row) else LoadRow.of([row.sums[i + 1] - row.sums[i] for i in chosen])
    place = {i: k for k, i in enumerate(chosen)} if any(one.excluded for one in bins) else {}
    # What was stepped round is left out of the row, so places change.
    fitted = [Bin(one.limit, one.base, tuple(place[i] for i in one.excluded if i in place)) for one in bins]
    ends = low_first_split(kept, fitted) if low_first else balanced_split(kept, fitted)
    if ends is None:
        ends = fill(kept, fitted)
    assert ends[-1] == len(kept), (
        "the fill holds these units in order, so a split over the same devices exists"
    )
    return [
        (d, start, end) for d, (start, end) in enumerate(zip([0, *ends], ends, strict=False)) if end > start
    ]


@dataclass(frozen=True)
class LowerTiers:
    """What lies on cpu and disk: bytes left there, and units that found no place."""

    homes: dict[int, Device]
    left: dict[Device, int]
    homeless: Sequence[int]

    def goes_back(self, problem: PlacementProblem, at: int, on_cpu: Sequence[int]) -> bool:
        """Place a unit that found no place in the first gap."""
        for device, left in self.left.items():
            nbytes = (on_cpu if device == CPU else problem.lower_bytes)[at]
            if nbytes <= left and device not in problem.units[at].excluded:
                self.homes[at] = device
                self.left[device] -= nbytes
                return True
        return False


def fill_lower_tiers(
    problem: PlacementProblem,
    below: Sequence[int],
    pinned: Mapping[int, Device],
    on_cpu: Sequence[int],
    kept: int,
) -> LowerTiers:
    """Fill cpu, then disk, forward only.

    `on_cpu` are the units' bytes there, `kept` what the CPU needs for itself.
    """
    tiers = problem.lower_tiers
    bytes_on = {device: on_cpu if device == CPU else problem.lower_bytes for device in tiers}
    left = {device: problem.limits[device] - (kept if device == CPU else 0) for device in tiers}
    for at, device in pinned.items():
        left[device] -= bytes_on[device][at]
    homes: dict[int, Device] = dict(pinned)
    if problem.one_strategy is not None:
        plain = _plain_fill(below, tiers, bytes_on, left)
        if plain is not None:
            return plain
    homeless: list[int] = []
    whole = dict(left)
    # The first open tier is where filling stands. It closes when a unit that it could have held, had it been
    # empty, had to go further down: from then on nothing goes back, as on the accelerators.
    open_tiers = list(tiers)
    units = problem.units
    for at in below:
        excluded = units[at][3]
        for device in open_tiers:
            nbytes = bytes_on[device][at]
            if nbytes <= left[device] and (not excluded or device not in excluded):
                if (
                    device is not open_tiers[0]
                    and bytes_on[open_tiers[0]][at] <= whole[open_tiers[0]]
                    and open_tiers[0] not in excluded
                ):
                    open_tiers.pop(0)
                homes[at] = device
                left[device] -= nbytes
                break
        else:
            homeless.append(at)
    return LowerTiers(homes, left, homeless)


def _plain_fill(
    below: Sequence[int],
    tiers: Sequence[Device],
    bytes_on: Mapping[Device, Sequence[int]],
    rooms: Mapping[Device, int],
) -> LowerTiers | None:
    """Return the fill where it is one run for cpu and one for disk.

    In a tenth of the time that a loop over units takes; None elsewhere.
    """
    homes: dict[int, Device] = {}
    left = dict(rooms)
    at = 0
    for device in tiers:
        amounts = [bytes_on[device][unit] for unit in below[at:]]
        sums = list(accumulate(amounts))
        end = bisect_right(sums, left[device])
        if end < len(amounts) and (device is tiers[-1] or max(amounts) > left[device]):
            return None
        homes.update(dict.fromkeys(below[at : at + end], device))
        left[device] -= sums[end - 1] if end else 0
        at += end
    return LowerTiers(homes, left, []) if at == len(below) else None
