"""A problem solved: homes, and the slots that serve what has no home on an accelerator.

First nothing is kept free, so that what fits to the byte stays to the byte. Only if something spills do slots come into it: they take
their room from the end of what the last accelerator holds, and `slots` says how much of it they are worth. That search is exact where
one strategy places everything and each unit is one atom. Pins, ties and several strategies can make blocks stream to other devices too;
for those more choices are planned, a bounded number of them, and the cheapest is taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.planning.problem import Overflow, Solution
from devmap.planning.slots import BlockCosts, best_cut, cost_in_place
from devmap.planning.streaming import host_slots, stream
from devmap.planning.tiers import LowerTiers, Rooms, Run, fill_lower_tiers, place_on_accelerators

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.config.device import Device
    from devmap.planning.problem import Problem, Slots

__all__ = ["solve"]

_MOST_ROUNDS = 8
"""Times that homes and what they need are brought into agreement; two are usual."""
_MOST_SIZES = 3
"""Slot sizes that are planned for each device where the search is not exact."""


def solve(problem: Problem) -> Solution | Overflow:
    """Homes and executing devices within every budget, or what found no place."""
    rooms = Rooms(problem, {})
    crowded = [device for device in problem.limits if device.is_accelerator and rooms.left(device) < 0]
    if crowded:
        return _crowded(rooms, crowded)
    below = place_on_accelerators(rooms)
    spills = below or any(home is CPU or home is DISK for home in rooms.homes)
    if not spills or not problem.accelerators:
        return _settled(rooms, below)
    promising, expected = _at_the_end(problem, rooms, below)
    best = None if promising is None else _planned(problem, promising)
    if isinstance(best, Solution) and best.streaming.cost <= expected and problem.one_strategy is not None:
        return best
    plain = _settled(rooms, below)
    best = _cheaper(best, plain)
    if problem.one_strategy is None and isinstance(plain, Solution):
        for reserve in _anywhere(problem, plain):
            best = _cheaper(best, _planned(problem, reserve))
    return best


def _cheaper(best: Solution | Overflow | None, other: Solution | Overflow) -> Solution | Overflow:
    """The solution that pays less for what is not resident; the earlier one where they pay alike."""
    if not isinstance(best, Solution):
        return other
    return other if isinstance(other, Solution) and other.streaming.cost < best.streaming.cost else best


def _planned(problem: Problem, reserve: Mapping[Device, int]) -> Solution | Overflow:
    rooms = Rooms(problem, reserve)
    return _settled(rooms, place_on_accelerators(rooms))


# --- choices of what to keep free -------------------------------------------------------------------------------------------


def _at_the_end(problem: Problem, rooms: Rooms, below: Sequence[int]) -> tuple[dict[Device, int] | None, int]:
    """Bytes to keep free at the end of the last accelerator in use, and the cost that is then expected; None where no slot has room.

    Of an earlier device only where blocks would else be computed in place. Then the devices behind it stay empty, and all that
    they give up must fit the slots.
    """
    costs = BlockCosts.of(problem)
    spilled = sorted([*below, *(at for at, home in enumerate(rooms.homes) if home is CPU or home is DISK)])
    offered = sum(problem.limits[device] for device in problem.lower_tiers)
    best: tuple[int, dict[Device, int]] | None = None
    without = cost_in_place(costs, spilled)
    given_up: Sequence[int] = ()
    for run in (*reversed(_by_device(rooms)), _nothing(rooms)):
        held = sum([costs.resident[at] for at in run.units])
        excess = sum([problem.lower_bytes[at] for at in spilled]) + held - offered
        if excess > held:
            break  # cpu and disk cannot hold what has spilled already
        queue = [at for at in spilled if at > run.units[0]] if run.units else spilled
        smallest = max([costs.slot[at] for at in given_up], default=0)
        cut = best_cut(run.units, queue, costs, run.room, smallest=smallest, least=excess)
        if cut is not None and (best is None or cut.cost < best[0]):
            later = problem.accelerators[problem.accelerators.index(run.device) + (1 if run.units else 0) :]
            kept = {device: problem.limits[device] for device in later}
            best = (cut.cost, kept if not run.units else {**kept, run.device: run.room - cut.resident_bytes})
            if not cut.in_place:
                break
        given_up = run.units
        spilled = sorted([*spilled, *run.units])
    return (None, 0) if best is None or best[0] > without else (best[1], best[0])


def _by_device(rooms: Rooms) -> list[Run]:
    """The runs, with those of one device as one."""
    found: dict[Device, Run] = {}
    for run in rooms.runs:
        known = found.get(run.device)
        found[run.device] = run if known is None else Run(run.device, [*known.units, *run.units], known.room)
    return [found[device] for device in rooms.problem.accelerators if device in found]


def _nothing(rooms: Rooms) -> Run:
    """The first accelerator, which executes everything where nothing is resident."""
    first = rooms.problem.accelerators[0]
    return Run(first, (), next((run.room for run in rooms.runs if run.device == first), rooms.left(first)))


def _anywhere(problem: Problem, plain: Solution) -> Iterator[dict[Device, int]]:
    """Room for one or two of the largest blocks that want to stream to each device."""
    nearest = problem.accelerators[0]
    queues: dict[Device, list[int]] = {}
    for at, home in enumerate(plain.homes):
        if home is not CPU and home is not DISK:
            nearest = home
        elif problem.loads.frozen[at]:
            queues.setdefault(nearest, []).append(at)
    sizes = {device: sorted(Counter([problem.loads.slot[at] for at in queue]), reverse=True) for device, queue in queues.items()}
    for rank in range(_MOST_SIZES):
        for count in (2, 1):
            kept = {}
            for device, queue in queues.items():
                size = sizes[device][min(rank, len(sizes[device]) - 1)]
                beside = sum([problem.beside_bytes[at] for at in queue if problem.loads.slot[at] <= size])
                kept[device] = min(count * size + beside, problem.limits[device])
            if kept:
                yield kept


# --- one choice carried out -------------------------------------------------------------------------------------------------


def _settled(rooms: Rooms, below: Sequence[int]) -> Solution | Overflow:
    """The lower tiers filled, what spilled executed, and the needs of the CPU met; or what found no place."""
    problem = rooms.problem
    gaps: list[int] = []
    while True:  # each round but the last takes units off `below`
        provisional = _atom_homes(problem, [CPU if home is None else home for home in rooms.homes])
        streaming = stream(problem, provisional, {device: rooms.left(device) for device in problem.limits})
        lower = _lower(rooms, below, streaming.in_place)
        if isinstance(lower, Overflow):
            return lower
        if not lower.tiers.homeless:
            executed = replace(streaming, slots={**streaming.slots, **lower.slots}, needs={**streaming.needs, **lower.needs})
            return Solution(lower.homes, executed, tuple(sorted([*gaps, *lower.gaps])))
        filled = [at for at in lower.tiers.homeless if _goes_back(rooms, at, streaming.needs)]
        if not filled:
            free = {**{device: rooms.left(device) for device in problem.limits}, **lower.tiers.left}
            homeless = tuple(lower.tiers.homeless)
            return Overflow(homeless, sum([problem.resident_bytes[at] for at in homeless]), dict(sorted(free.items())))
        gaps += filled
        below = [at for at in below if rooms.homes[at] is None]


@dataclass(frozen=True)
class _Lower:
    """The lower tiers, and what the CPU keeps beside what lies there."""

    tiers: LowerTiers
    homes: tuple[Device, ...] = ()
    """Of all atoms; empty where something is homeless."""
    slots: Mapping[Device, Slots] = field(default_factory=dict)
    needs: Mapping[Device, int] = field(default_factory=dict)
    gaps: tuple[int, ...] = ()


def _lower(rooms: Rooms, below: Sequence[int], in_place: frozenset[int]) -> _Lower | Overflow:
    """Fill cpu and disk; the more goes to disk the more the CPU may need for slots, so that this takes some rounds."""
    problem = rooms.problem
    pinned = {at: home for at, home in enumerate(rooms.homes) if home is CPU or home is DISK}
    on_cpu = problem.on_cpu(in_place)
    tiers = fill_lower_tiers(problem, below, pinned, on_cpu, 0)
    crowded = [device for device, left in tiers.left.items() if left < 0]
    if crowded:
        return _crowded(rooms, crowded, tiers.left)
    first = tiers
    for most_slots in (2, 1):
        kept, tiers = 0, first
        for _ in range(_MOST_ROUNDS):
            gaps = tuple(at for at in tiers.homeless if tiers.goes_back(problem, at, on_cpu))
            if len(gaps) < len(tiers.homeless):
                break
            homes = _atom_homes(problem, [tiers.homes[at] if home is None else home for at, home in enumerate(rooms.homes)])
            slots, needed = host_slots(problem, homes, in_place, most_slots=most_slots)
            if needed - kept <= tiers.left.get(CPU, 0):
                settled = LowerTiers(tiers.homes, tiers.left, [])
                return _Lower(settled, tuple(homes), {CPU: slots} if slots else {}, {CPU: needed} if needed else {}, gaps)
            kept = max(needed, kept)
            tiers = fill_lower_tiers(problem, below, pinned, on_cpu, kept)
    homeless = [at for at in tiers.homeless if at not in tiers.homes] or [at for at in below if tiers.homes.get(at) is CPU] or list(below)
    return _Lower(LowerTiers(tiers.homes, tiers.left, homeless))


def _goes_back(rooms: Rooms, at: int, needs: Mapping[Device, int]) -> bool:
    """Place a unit that nothing else has room for in the first gap of an accelerator."""
    nbytes, barred = rooms.problem.resident_bytes[at], rooms.problem.units[at].barred
    for device in rooms.problem.accelerators:
        if device not in barred and nbytes <= rooms.left(device) - needs.get(device, 0):
            rooms.homes[at] = device
            rooms.used[device] += nbytes
            return True
    return False


def _atom_homes(problem: Problem, homes: Sequence[Device]) -> list[Device]:
    if problem.is_plain:
        return list(homes)
    found: list[Device] = [CPU] * len(problem.atoms)
    for unit, home in zip(problem.units, homes, strict=True):
        for at in unit[0]:
            found[at] = home
    return found


def _crowded(rooms: Rooms, devices: Sequence[Device], lower: Mapping[Device, int] | None = None) -> Overflow:
    """What is pinned to a device is more than it may hold."""
    left = {**{device: rooms.left(device) for device in rooms.problem.limits}, **(lower or {})}
    missing = sum(-left[device] for device in devices)
    pinned = tuple(at for at, unit in enumerate(rooms.problem.units) if unit.pin in devices)
    which = " and ".join("cpu" if device == CPU else f"device {device}" for device in devices)
    return Overflow(pinned, missing, dict(sorted(left.items())), f"what the map pins to {which} is more than may lie there")
