"""A problem solved: homes, and the slots that serve what has no home on an accelerator.

First nothing is kept free, so that what fits to the byte stays to the byte. Only if something spills do slots
come into it: they take their room from the end of what the last accelerator holds, and `slots` says how much
of it they are worth. That search is exact where one strategy places everything and each unit is one atom.
Pins, ties and several strategies can make blocks stream to other devices too; for those more choices are
planned, a bounded number of them, and the cheapest is taken. Where no order does, `packing` is the last
resort.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK
from devmap.planning.placement.fill import FilledDevice, FreeCapacity, place_on_accelerators
from devmap.planning.placement.packing import fits_by_bytes, pack
from devmap.planning.placement.slot_sizing import BlockCosts, best_cut, cost_in_place
from devmap.planning.placement.spill import over_pinned, resolve_spill, with_homes, without_place
from devmap.planning.problem.model import Overflow, Solution

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["solve"]

_MOST_SIZES = 3
"""Slot sizes that are planned for each device where the search is not exact."""


def solve(problem: PlacementProblem) -> Solution | Overflow:
    """Homes and executing devices within every budget, or what found no place.

    In the model's order where that fits; else packed, so that what is refused has no place in any order
    (`Overflow.is_proven` says whether that is certain).
    """
    found = _in_order(problem) if fits_by_bytes(problem) else without_place(problem)
    if isinstance(found, Solution) or found.reason:
        return found
    packing = pack(problem, lambda homes: with_homes(problem, homes))
    if packing.solution is not None:
        return packing.solution
    return replace(found, is_proven=packing.was_exhaustive, steps=packing.steps)


def _in_order(problem: PlacementProblem) -> Solution | Overflow:
    rooms = FreeCapacity(problem, {})
    crowded = over_pinned(rooms)
    if crowded is not None:
        return crowded
    below = place_on_accelerators(rooms)
    spills = below or any(home in (CPU, DISK) for home in rooms.homes)
    if not spills or not problem.accelerators:
        return resolve_spill(rooms, below)
    promising, expected = _at_the_end(problem, rooms, below)
    best = None if promising is None else _planned(problem, promising)
    if isinstance(best, Solution) and best.streaming.cost <= expected and problem.one_strategy is not None:
        return best
    plain = resolve_spill(rooms, below)
    best = _cheaper(best, plain)
    if problem.one_strategy is None and isinstance(plain, Solution):
        for reserve in _anywhere(problem, plain):
            best = _cheaper(best, _planned(problem, reserve))
    return best


def _cheaper(best: Solution | Overflow | None, other: Solution | Overflow) -> Solution | Overflow:
    """Return the solution that pays less for what is not resident; the earlier one where they pay alike."""
    if not isinstance(best, Solution):
        return other
    return other if isinstance(other, Solution) and other.streaming.cost < best.streaming.cost else best


def _planned(problem: PlacementProblem, reserve: Mapping[Device, int]) -> Solution | Overflow:
    rooms = FreeCapacity(problem, reserve)
    return resolve_spill(rooms, place_on_accelerators(rooms))


# --- choices of what to keep free
# -------------------------------------------------------------------------------------------


def _at_the_end(
    problem: PlacementProblem, rooms: FreeCapacity, below: Sequence[int]
) -> tuple[dict[Device, int] | None, int]:
    """Return the bytes to keep free at the end of the last accelerator in use.

    And the cost that is then expected.

    None where no slot has room.

    Of an earlier device only where blocks would else be computed in place. Then the devices behind it stay
    empty, and all that they give up must fit the slots.
    """
    costs = BlockCosts.of(problem)
    spilled = sorted([*below, *(at for at, home in enumerate(rooms.homes) if home in (CPU, DISK))])
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


def _by_device(rooms: FreeCapacity) -> list[FilledDevice]:
    """Return the runs, with those of one device as one."""
    found: dict[Device, FilledDevice] = {}
    for run in rooms.runs:
        known = found.get(run.device)
        found[run.device] = (
            run if known is None else FilledDevice(run.device, [*known.units, *run.units], known.room)
        )
    return [found[device] for device in rooms.problem.accelerators if device in found]


def _nothing(rooms: FreeCapacity) -> FilledDevice:
    """Return the first accelerator, which executes everything where nothing is resident."""
    first = rooms.problem.accelerators[0]
    return FilledDevice(
        first, (), next((run.room for run in rooms.runs if run.device == first), rooms.left(first))
    )


def _anywhere(problem: PlacementProblem, plain: Solution) -> Iterator[dict[Device, int]]:
    """Room for one or two of the largest blocks that want to stream to each device."""
    nearest = problem.accelerators[0]
    queues: dict[Device, list[int]] = {}
    for at, home in enumerate(plain.homes):
        if home not in (CPU, DISK):
            nearest = home
        elif problem.loads.frozen[at]:
            queues.setdefault(nearest, []).append(at)
    sizes = {
        device: sorted(Counter([problem.loads.slot[at] for at in queue]), reverse=True)
        for device, queue in queues.items()
    }
    for rank in range(_MOST_SIZES):
        for count in (2, 1):
            kept = {}
            for device, queue in queues.items():
                size = sizes[device][min(rank, len(sizes[device]) - 1)]
                beside = sum([problem.beside_bytes[at] for at in queue if problem.loads.slot[at] <= size])
                kept[device] = min(count * size + beside, problem.limits[device])
            if kept:
                yield kept
