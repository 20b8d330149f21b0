"""One choice carried out: the lower tiers filled, what spilled executed, and the needs of the CPU met.

Or what found no place.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, device_names
from devmap.planning.placement.execution import cpu_needs, is_within_budgets, stream, streamed
from devmap.planning.placement.fill import FreeCapacity, LowerTiers, fill_lower_tiers, place_on_accelerators
from devmap.planning.problem.model import NO_LIMIT, Overflow, Solution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["over_pinned", "resolve_spill", "with_homes", "without_place"]

_MOST_ROUNDS = 8
"""Times that homes and what they need are brought into agreement; two are usual."""


def over_pinned(rooms: FreeCapacity) -> Overflow | None:
    """Return the accelerators to which more is pinned than they may hold, if there are any."""
    crowded = [device for device in rooms.problem.limits if device.is_accelerator and rooms.left(device) < 0]
    return _crowded(rooms, crowded) if crowded else None


def without_place(problem: PlacementProblem) -> Overflow:
    """Return what a forward fill leaves without a place where all devices together hold too little."""
    rooms = FreeCapacity(problem, {})
    over = over_pinned(rooms)
    if over is not None:
        return over
    below = place_on_accelerators(rooms)
    tiers = fill_lower_tiers(problem, below, _pinned_below(rooms), problem.lower_bytes, 0)
    crowded = [device for device, left in tiers.left.items() if left < 0]
    return _crowded(rooms, crowded, tiers.left) if crowded else _overflow(rooms, tiers)


def resolve_spill(rooms: FreeCapacity, below: Sequence[int]) -> Solution | Overflow:
    """Return a solution in which the units `below` lie on cpu and disk and all others where `rooms` has them.

    Or what found no place.
    """
    problem = rooms.problem
    gaps: list[int] = []
    while True:  # each round but the last takes units off `below`
        provisional = _atom_homes(problem, [CPU if home is None else home for home in rooms.homes])
        streaming = stream(problem, provisional, {device: rooms.left(device) for device in problem.limits})
        lower = _lower(rooms, below, streaming.in_place)
        if isinstance(lower, Overflow):
            return lower
        if not lower.tiers.homeless:
            executed = replace(streaming, needs={**streaming.needs, **lower.needs})
            return Solution(lower.homes, executed, tuple(sorted([*gaps, *lower.gaps])))
        filled = _gone_back(rooms, lower.tiers.homeless, streaming.needs)
        if not filled:
            return _overflow(rooms, lower.tiers)
        gaps += filled
        below = [at for at in below if rooms.homes[at] is None]


@dataclass(frozen=True)
class _Lower:
    """The lower tiers, and what the CPU keeps beside what lies there."""

    tiers: LowerTiers
    homes: tuple[Device, ...] = ()
    """Of all atoms; empty where something is homeless."""
    needs: Mapping[Device, int] = field(default_factory=dict)
    gaps: tuple[int, ...] = ()


def _lower(rooms: FreeCapacity, below: Sequence[int], in_place: frozenset[int]) -> _Lower | Overflow:
    """Fill cpu and disk; the more goes to disk the more the CPU may need beside it.

    So that this takes some rounds.
    """
    problem = rooms.problem
    pinned = _pinned_below(rooms)
    on_cpu = problem.on_cpu(in_place)
    tiers = fill_lower_tiers(problem, below, pinned, on_cpu, 0)
    crowded = [device for device, left in tiers.left.items() if left < 0]
    if crowded:
        return _crowded(rooms, crowded, tiers.left)
    kept = 0
    for _ in range(_MOST_ROUNDS):
        gaps = tuple(at for at in tiers.homeless if tiers.goes_back(problem, at, on_cpu))
        if len(gaps) < len(tiers.homeless):
            break
        homes = _atom_homes(
            problem, [tiers.homes[at] if home is None else home for at, home in enumerate(rooms.homes)]
        )
        needed = cpu_needs(problem, homes, in_place)
        if needed - kept <= tiers.left.get(CPU, 0):
            settled = LowerTiers(tiers.homes, tiers.left, [])
            return _Lower(settled, tuple(homes), {CPU: needed} if needed else {}, gaps)
        kept = max(needed, kept)
        tiers = fill_lower_tiers(problem, below, pinned, on_cpu, kept)
    homeless = (
        [at for at in tiers.homeless if at not in tiers.homes]
        or [at for at in below if tiers.homes.get(at) == CPU]
        or list(below)
    )
    return _Lower(LowerTiers(tiers.homes, tiers.left, homeless))


def with_homes(problem: PlacementProblem, homes: Sequence[Device]) -> Solution | None:
    """Given homes of all units with what they need to be executed.

    None where some device has no room for that.
    """
    used = dict.fromkeys(problem.limits, 0)
    for at, home in enumerate(homes):
        used[home] += (problem.resident_bytes if home.is_accelerator else problem.lower_bytes)[at]
    left = {device: limit - used[device] for device, limit in problem.limits.items()}
    if min(left.values()) < 0:
        return None
    placed = _atom_homes(problem, homes)
    usual = stream(problem, placed, left)
    beside = problem.on_cpu(usual.in_place)
    more = sum([beside[at] - problem.lower_bytes[at] for at, home in enumerate(homes) if home == CPU])
    needed = cpu_needs(problem, placed, usual.in_place)
    if needed + more <= left.get(CPU, needed + more):
        executed = replace(usual, needs={**usual.needs, **({CPU: needed} if needed else {})})
        return Solution(tuple(placed), executed, is_packed=True)
    nearest = streamed(problem, placed, frozenset(), most_slots=1).execution_devices
    too_large = (
        at
        for at, device in enumerate(nearest)
        if device != placed[at] and problem.loads.slot[at] > left.get(device, NO_LIMIT)
    )
    for in_place in (frozenset(too_large), frozenset(range(len(placed)))):
        streaming = streamed(problem, placed, in_place, most_slots=1)
        if is_within_budgets(problem, placed, streaming):
            return Solution(tuple(placed), streaming, is_packed=True)
    return None


def _pinned_below(rooms: FreeCapacity) -> dict[int, Device]:
    if rooms.problem.one_strategy is not None:
        return {}
    return {at: home for at, home in enumerate(rooms.homes) if home in (CPU, DISK)}


def _overflow(rooms: FreeCapacity, tiers: LowerTiers) -> Overflow:
    problem, homeless = rooms.problem, tuple(tiers.homeless)
    free = {**{device: rooms.left(device) for device in problem.limits}, **tiers.left}
    return Overflow(homeless, dict(sorted(free.items())))


def _gone_back(rooms: FreeCapacity, homeless: Sequence[int], needs: Mapping[Device, int]) -> list[int]:
    """Place units that nothing else has room for in the first gaps of the accelerators.

    Which of them found one.
    """
    problem = rooms.problem
    left = {device: rooms.left(device) - needs.get(device, 0) for device in problem.accelerators}
    most = max(left.values(), default=-1)
    found = []
    for at in homeless:
        nbytes = problem.resident_bytes[at]
        if nbytes > most:
            continue
        excluded = problem.units[at].excluded
        device = next(
            (device for device, room in left.items() if nbytes <= room and device not in excluded), None
        )
        if device is not None:
            rooms.homes[at] = device
            rooms.used[device] += nbytes
            left[device] -= nbytes
            most = max(left.values())
            found.append(at)
    return found


def _atom_homes(problem: PlacementProblem, homes: Sequence[Device]) -> list[Device]:
    if problem.is_plain:
        return list(homes)
    found: list[Device] = [CPU] * len(problem.atoms)
    for unit, home in zip(problem.units, homes, strict=True):
        for at in unit[0]:
            found[at] = home
    return found


def _crowded(
    rooms: FreeCapacity, devices: Sequence[Device], lower: Mapping[Device, int] | None = None
) -> Overflow:
    """Return what is pinned to a device is more than it may hold."""
    left = {**{device: rooms.left(device) for device in rooms.problem.limits}, **(lower or {})}
    pinned = tuple(at for at, unit in enumerate(rooms.problem.units) if unit.pin in devices)
    which = device_names(devices)
    return Overflow(
        pinned,
        dict(sorted(left.items())),
        f"what the map pins to {which} is more than may lie there",
    )
