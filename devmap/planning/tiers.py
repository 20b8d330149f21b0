"""Homes for all units, given what each device must keep free for streaming.

Accelerators first. Each strategy's units are split into contiguous runs over what is left of the accelerators; where they do
not all fit, the longest run of the order that does stays and the rest goes down: cpu, then disk, in order again. Precisely:

- Filling goes forward only. When a unit is too big for what is left on a device, later devices take over, and no later unit
  goes back, however small.
- A unit that is larger than every accelerator's whole room (or barred from all of them) is stepped round: it goes down by itself
  and the filling goes on behind it. Otherwise one huge embedding at the head would leave every accelerator empty.
- The same two rules hold for cpu and disk.
- Only where a unit is left without any place do gaps count: it goes to the first device, in tier order, that still has room. A plan is
  better than none, and the reasons name it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import CPU
from devmap.config.strategy import Strategy
from devmap.planning.partition import Bin, Row, balanced_split, fill, low_first_split
from devmap.planning.problem import Overflow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.device import Device
    from devmap.planning.problem import Problem

__all__ = ["assign"]


class _Rooms:
    """What is left on each device while units are placed; a class because every step takes from the same rooms."""

    def __init__(self, problem: Problem, reserve: Mapping[Device, int], in_place: frozenset[int]) -> None:
        self.problem = problem
        self.on_cpu = problem.on_cpu(in_place)
        self.offered = {budget.device for budget in problem.budgets}
        self.limit = {device: problem.limit(device) - reserve.get(device, 0) for device in self.offered}
        self.used = dict.fromkeys(self.offered, 0)
        self.homes: dict[int, Device] = {}

    def bytes_on(self, at: int, device: Device) -> int:
        if device.is_accelerator:
            return self.problem.resident_bytes[at]
        return self.on_cpu[at] if device == CPU else self.problem.lower_bytes[at]

    def left(self, device: Device) -> int:
        return self.limit[device] - self.used[device]

    def place(self, at: int, device: Device) -> None:
        self.homes[at] = device
        self.used[device] += self.bytes_on(at, device)

    def fits(self, at: int, device: Device) -> bool:
        return device not in self.problem.units[at].barred and self.bytes_on(at, device) <= self.left(device)


def assign(
    problem: Problem, reserve: Mapping[Device, int], in_place: frozenset[int]
) -> tuple[tuple[Device, ...], tuple[int, ...]] | Overflow:
    """The home of every atom and the units that fill gaps, or what found no place.

    `reserve` is what each device keeps free for streaming, `in_place` the atoms that compute on the CPU where they lie.
    """
    rooms = _Rooms(problem, reserve, in_place)
    for at, unit in enumerate(problem.units):
        if unit.pin is not None:
            rooms.place(at, unit.pin)
    crowded = [device for device in sorted(rooms.offered) if rooms.left(device) < 0]
    if crowded:
        return _crowded(rooms, crowded)
    below: list[int] = []
    for strategy, members in _by_strategy(problem).items():
        below += _place_on_accelerators(rooms, members, strategy)
    homeless = _place_below(rooms, sorted(below))
    gaps = tuple(at for at in homeless if _place_in_a_gap(rooms, at))
    if len(gaps) < len(homeless):
        return _overflow(rooms, [at for at in homeless if at not in rooms.homes])
    homes: list[Device | None] = [None] * len(problem.atoms)
    for at, device in rooms.homes.items():
        for member in problem.units[at].members:
            homes[member] = device
    return tuple(home for home in homes if home is not None), gaps


def _by_strategy(problem: Problem) -> dict[Strategy, list[int]]:
    """Units that are not pinned, by the strategy that places them, each strategy where its first unit stands."""
    found: dict[Strategy, list[int]] = {}
    for at, unit in enumerate(problem.units):
        if unit.pin is None:
            found.setdefault(unit.strategy or Strategy.AUTO, []).append(at)
    if Strategy.SEQUENTIAL in found and Strategy.AUTO in found:
        found[Strategy.AUTO] = sorted(found[Strategy.AUTO] + found.pop(Strategy.SEQUENTIAL))
    return found


def _place_on_accelerators(rooms: _Rooms, members: Sequence[int], strategy: Strategy) -> list[int]:
    """Place what the accelerators hold; return what goes down."""
    devices = rooms.problem.accelerators
    if not devices:
        return list(members)
    units = rooms.problem.units
    loads = rooms.problem.resident_bytes
    most = max(rooms.left(device) for device in devices)
    eligible = [
        at
        for at in members
        if (loads[at] <= most and not units[at].barred)
        or any(device not in units[at].barred and loads[at] <= rooms.left(device) for device in devices)
    ]
    row = Row.of(loads[at] for at in eligible)
    barred = [i for i, at in enumerate(eligible) if units[at].barred]
    bins = [
        Bin(rooms.limit[device], rooms.used[device], tuple(i for i in barred if device in units[eligible[i]].barred)) for device in devices
    ]
    held = fill(row, bins)[-1]
    ends = _split(Row(row.sums[: held + 1]), [_within(one, held) for one in bins], strategy)
    start = 0
    for device, end in zip(devices, ends, strict=True):
        for at in eligible[start:end]:
            rooms.homes[at] = device
        rooms.used[device] += row.load(start, end)
        start = end
    placed = rooms.homes
    return [at for at in members if at not in placed]


def _within(one: Bin, length: int) -> Bin:
    return Bin(one.limit, one.base, tuple(at for at in one.barred if at < length)) if one.barred else one


def _split(row: Row, bins: Sequence[Bin], strategy: Strategy) -> list[int]:
    """The ends of the runs of units that are known to fit."""
    ends = None
    if strategy is Strategy.BALANCED:
        ends = balanced_split(row, bins)
    elif strategy is Strategy.BALANCED_LOW_0:
        ends = low_first_split(row, bins)
    return fill(row, bins) if ends is None else ends


def _place_below(rooms: _Rooms, members: Sequence[int]) -> list[int]:
    """Fill cpu, then disk, forward only; return what found no place."""
    tiers = list(rooms.problem.lower_tiers)
    whole = {device: rooms.left(device) for device in tiers}
    homeless = []
    for at in members:
        device = next((device for device in tiers if rooms.fits(at, device)), None)
        if device is None:
            homeless.append(at)
            continue
        if device != tiers[0] and _was_passed(rooms, at, tiers[0], whole[tiers[0]]):
            tiers.pop(0)
        rooms.place(at, device)
    return homeless


def _was_passed(rooms: _Rooms, at: int, device: Device, whole: int) -> bool:
    """Whether a device is left for good: the unit could have gone there while it was empty. One that could not is stepped round."""
    return device not in rooms.problem.units[at].barred and rooms.bytes_on(at, device) <= whole


def _place_in_a_gap(rooms: _Rooms, at: int) -> bool:
    for device in (*rooms.problem.accelerators, *rooms.problem.lower_tiers):
        if rooms.fits(at, device):
            rooms.place(at, device)
            return True
    return False


def _overflow(rooms: _Rooms, homeless: list[int]) -> Overflow:
    free = {device: rooms.left(device) for device in sorted(rooms.offered)}
    needed = sum(rooms.problem.resident_bytes[at] for at in homeless)
    return Overflow(tuple(homeless), needed, free)


def _crowded(rooms: _Rooms, devices: Sequence[Device]) -> Overflow:
    """What is pinned to a device is more than it may hold."""
    missing = sum(-rooms.left(device) for device in devices)
    pinned = tuple(at for at, unit in enumerate(rooms.problem.units) if unit.pin in devices)
    which = " and ".join("cpu" if device == CPU else f"device {device}" for device in devices)
    free = {device: rooms.left(device) for device in sorted(rooms.offered)}
    return Overflow(pinned, missing, free, f"what the map pins to {which} is more than may lie there")
