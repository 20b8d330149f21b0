"""`device_map: fastest`: the placement with the least predicted time of one pass.

Four searches, and the best of what they find:

1. Where everything fits on the accelerators: the best contiguous runs in the best order of devices, exact
   (`stage_order`).
2. Otherwise, and where that leaves a gap to the bound, the optimum of the relaxation (`bound`) rounded to
   whole atoms that are spaced evenly (`rounding`), then improved by moving a few atoms of a kind from one way
   of being served to another while that helps (`improve`).
3. Where placements are few, all of them; for models of some dozen blocks, steps away from the best found
   (`local_search`).
4. What `auto` and `balanced` would do, so that fastest is never slower than they are, and has a plan wherever
   they have one.

The bound certifies how far the result can be from the best placement there is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU
from devmap.config.values.strategy import Objective, Strategy
from devmap.planning.fastest.bound import relaxation
from devmap.planning.fastest.improve import SearchOrigin, from_relaxation, prefers_cpu
from devmap.planning.fastest.local_search import best_nearby, best_of_all
from devmap.planning.fastest.rounding import Candidate, Reserve, judge, reserve_of
from devmap.planning.fastest.schedule import pass_time
from devmap.planning.fastest.stage_order import Stage, stages
from devmap.planning.placement.execution import streamed
from devmap.planning.placement.solve import solve
from devmap.planning.problem.model import Overflow
from devmap.planning.problem.units import PlacementUnit, SingleUnits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.problem.model import PlacementProblem, Solution

__all__ = ["Fastest", "solve_fastest"]

_MOST_FITS = 6
_WORTH_MORE = 1.01
"""Runs of residents nearer to the bound than this are not improved upon: less could be gained than a
measurement would show."""
_WORTH_TURNS = 0.95
"""Devices that take turns block by block must save this much: many cuts are hard to read and move activations
often."""


@dataclass(frozen=True)
class Fastest:
    """The placement, its time, the bound on the objective in femtoseconds, and what was searched."""

    candidate: Candidate
    objective: Objective
    bound: int
    is_exact: bool
    """Whether no contiguous runs of residents in any order of devices are faster."""
    kept_order: bool
    """Whether there were too many different devices to search their order."""
    origin: SearchOrigin
    chosen_in_place: frozenset[int]
    """Atoms that the CPU computes because that is faster, though they could be streamed."""

    @property
    def value(self) -> int:
        """The objective in femtoseconds."""
        return self.candidate.key(self.objective)[0]


def solve_fastest(problem: PlacementProblem, costs: PassCosts, objective: Objective) -> Fastest | Overflow:
    """Return the fastest placement found, or what found no place.

    The rates of every offered device must be known.
    """
    plain = problem.one_strategy is not None
    problem = replace(problem, units=tuple(problem.units))  # they are walked many times
    runs, is_order_free = _resident_runs(problem, costs, objective)
    found: list[tuple[Candidate, SearchOrigin]] = [] if runs is None else [(runs, SearchOrigin.RUNS)]
    others = {origin: solve(_with(problem, strategy, plain=plain)) for origin, strategy in _SEEDS.items()}
    seeds = [
        (seed, origin)
        for origin, one in others.items()
        if not isinstance(one, Overflow) and (seed := _timed(costs, one)) is not None
    ]
    found += seeds
    relaxed = relaxation(problem, costs, objective)
    has_gap = runs is None or runs.key(objective)[0] > _WORTH_MORE * relaxed.bound
    if problem.accelerators and has_gap and relaxed.is_feasible:
        found += from_relaxation(problem, costs, objective, [seed for seed, _ in seeds])
    if has_gap:
        found += _one_by_one(problem, costs, objective, found)
    if not found:
        overflow = others[SearchOrigin.AUTO]
        assert isinstance(overflow, Overflow), "a solution has a time: the rates are known"
        return overflow
    best, origin = _best(found, objective)
    whole = all(len(unit.members) == 1 and unit.pin is None for unit in problem.units)
    chosen = _chosen_in_place(problem, best.solution)
    # what is left to the CPU by choice is told by fastest's own reasons
    streaming = replace(best.solution.streaming, in_place=best.solution.streaming.in_place - chosen)
    best = replace(best, solution=replace(best.solution, streaming=streaming))
    return Fastest(
        best,
        objective,
        relaxed.bound,
        is_exact=runs is not None and whole and is_order_free,
        kept_order=runs is not None and not is_order_free,
        origin=origin,
        chosen_in_place=chosen,
    )


def _best(
    found: Sequence[tuple[Candidate, SearchOrigin]], objective: Objective
) -> tuple[Candidate, SearchOrigin]:
    """Return the fastest; of two that take as long the one whose search is easier to follow."""

    def rank(one: tuple[Candidate, SearchOrigin]) -> tuple[float, bool, int, bool]:
        (value, other), origin = one[0].key(objective), one[1]
        return (
            value / _WORTH_TURNS if origin is SearchOrigin.TURNS else value,
            origin in _ONE_BY_ONE,
            other,
            origin is not SearchOrigin.RUNS,
        )

    return min(found, key=rank)


_ONE_BY_ONE = {SearchOrigin.ALL, SearchOrigin.NEARBY}


def _one_by_one(
    problem: PlacementProblem,
    costs: PassCosts,
    objective: Objective,
    found: Sequence[tuple[Candidate, SearchOrigin]],
) -> list[tuple[Candidate, SearchOrigin]]:
    """Return the best of all placements where they are few, else of those near what was found."""
    best, tried_all = best_of_all(problem, costs, objective)
    if not tried_all and found:
        turns = _best(found, objective)[1] is SearchOrigin.TURNS
        best = best_nearby(
            problem,
            costs,
            objective,
            [one for one, origin in found if turns or origin is not SearchOrigin.TURNS],
        )
    return [] if best is None else [(best, SearchOrigin.ALL if tried_all else SearchOrigin.NEARBY)]


_SEEDS = {SearchOrigin.AUTO: Strategy.AUTO, SearchOrigin.BALANCED: Strategy.BALANCED}


def _with(problem: PlacementProblem, strategy: Strategy, *, plain: bool) -> PlacementProblem:
    if plain:  # nothing is pinned, excluded or joined, which `solve` is faster with
        return replace(problem, units=SingleUnits(len(problem.atoms), strategy))
    return replace(
        problem,
        units=tuple(PlacementUnit(unit.members, unit.pin, strategy, unit.excluded) for unit in problem.units),
    )


def _timed(costs: PassCosts, solution: Solution) -> Candidate | None:
    time = pass_time(costs, solution.homes, solution.streaming)
    return None if time is None else Candidate(solution, time)


def _chosen_in_place(problem: PlacementProblem, solution: Solution) -> frozenset[int]:
    """Return what the CPU computes at home although some accelerator streams, or could."""
    if not problem.accelerators:
        return frozenset()
    loads = problem.loads
    room = max(problem.limit(device) for device in problem.accelerators)
    return frozenset(
        at
        for at, (home, device) in enumerate(
            zip(solution.homes, solution.streaming.execution_devices, strict=True)
        )
        if home == CPU and device == CPU and loads.frozen[at] and loads.slot[at] <= room
    )


def _resident_runs(
    problem: PlacementProblem, costs: PassCosts, objective: Objective
) -> tuple[Candidate | None, bool]:
    """Contiguous runs of everything that is not pinned, if the accelerators hold it.

    And whether every order of them was searched.
    """
    free = [number for number, unit in enumerate(problem.units) if unit.pin is None]
    units = problem.units
    loads = [problem.resident_bytes[number] for number in free]
    devices = problem.accelerators
    is_order_free = True
    best: Candidate | None = None
    trained = frozenset(at for at, frozen in enumerate(problem.loads.frozen) if not frozen)
    for in_place in dict.fromkeys(
        (trained, trained | prefers_cpu(problem, costs), frozenset(range(len(problem.atoms))))
    ):
        reserve = Reserve({}, {})
        for _ in range(_MOST_FITS):
            found = stages(loads, _stages(problem, costs, devices, free, reserve.whole), objective)
            if found is None:
                break
            is_order_free &= found.is_order_free
            homes = {at: unit.pin for unit in units if unit.pin is not None for at in unit.members}
            start = 0
            for place, end in found.runs:
                homes.update(
                    {at: devices[place] for number in free[start:end] for at in units[number].members}
                )
                start = end
            placed = tuple(homes[at] for at in range(len(problem.atoms)))
            one = judge(problem, costs, placed, in_place, objective)
            if one is not None:
                best = one if best is None or one.key(objective) < best.key(objective) else best
                break
            reserve = reserve.larger(
                reserve_of(problem, placed, streamed(problem, placed, in_place, most_slots=2))
            )
        if all(unit.pin is None or unit.pin.is_accelerator for unit in units):
            break
    return best, is_order_free


def _stages(
    problem: PlacementProblem,
    costs: PassCosts,
    devices: Sequence[Device],
    free: Sequence[int],
    reserve: Mapping[Device, int],
) -> list[Stage]:
    """Return what each accelerator offers to the units that are not pinned."""
    units = problem.units
    alike: dict[int, tuple[int, ...]] = {}
    found = []
    for device in devices:
        compute = costs.compute[device]
        if id(compute) not in alike:
            alike[id(compute)] = tuple(sum(compute[at] for at in units[number].members) for number in free)
        pinned = [number for number, unit in enumerate(units) if unit.pin == device]
        found.append(
            Stage(
                limit=problem.limit(device)
                - reserve.get(device, 0)
                - sum(problem.resident_bytes[number] for number in pinned),
                compute=alike[id(compute)],
                boundary=costs.boundary.get(device, 0),
                excluded=tuple(
                    place for place, number in enumerate(free) if device in units[number].excluded
                ),
                base=sum(compute[at] for number in pinned for at in units[number].members),
            )
        )
    return found
