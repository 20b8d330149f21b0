"""Placements by rounding the optimum of the relaxation, and their improvement step by step."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU
from devmap.planning.fastest.bound import classes_of, kinds_of, relaxation
from devmap.planning.fastest.rounding import (
    IN_PLACE,
    MODES,
    RESIDENT,
    STREAM,
    Candidate,
    DealOrder,
    Reserve,
    assign_modes,
    counts_of,
    judge,
    mode_of,
    reserve_of,
)
from devmap.planning.placement.execution import streamed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.config.values.strategy import Objective
    from devmap.planning.fastest.bound import Kinds, Relaxation
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.fastest.rounding import Counts
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["SearchOrigin", "from_relaxation", "prefers_cpu"]

_MOST_FITS = 6
_MOST_TRIES = 5_000
"""Atoms times placements that improvement tries, a fraction of a second; past that many atoms the rounding
stands as it is."""
_MOST_KINDS = 8


class SearchOrigin(enum.Enum):
    """Which search a placement comes from."""

    RUNS = "runs"
    ROUNDED = "rounded"
    TURNS = "turns"
    AUTO = "auto"
    BALANCED = "balanced"
    ALL = "all"
    NEARBY = "nearby"


def prefers_cpu(problem: PlacementProblem, costs: PassCosts) -> frozenset[int]:
    """Atoms that the CPU computes sooner than the slowest link copies them.

    Embeddings, of which a pass reads a few rows.
    """
    links = [costs.copy[device] for device in problem.accelerators if device in costs.copy]
    if CPU not in costs.compute or not links:
        return frozenset()
    compute = costs.compute[CPU]
    return frozenset(at for at in range(len(problem.atoms)) if compute[at] < max(link[at] for link in links))


def from_relaxation(
    problem: PlacementProblem, costs: PassCosts, objective: Objective, seeds: Sequence[Candidate]
) -> Iterator[tuple[Candidate, SearchOrigin]]:
    """Yield the optimum of the relaxation rounded: without streaming, in runs, in turns.

    The best order of each improved.

    Where the budgets are so tight that no rounding fits, the improvement starts from `seeds`, which do fit.
    """
    aim = _Aim(problem, costs, objective, kinds_of(problem, costs), prefers_cpu(problem, costs))
    orders = _orders(problem, costs)
    layouts = [
        [DealOrder(order, streams=False) for order in orders],
        [DealOrder(order) for order in orders],
        [DealOrder(orders[0], in_turns=True)] if len(problem.accelerators) > 1 else [],
    ]
    for alike in layouts:
        found = [one for layout in alike if (one := _fitted(aim, layout, most_slots=2)) is not None]
        found = found or [one for layout in alike if (one := _fitted(aim, layout, most_slots=1)) is not None]
        found = found or [
            one for layout in alike for seed in seeds if (one := _dealt_again(aim, layout, seed)) is not None
        ]
        if found:
            best = min(found, key=lambda one: one.candidate.key(objective))
            yield _improved(aim, best), SearchOrigin.TURNS if best.layout.in_turns else SearchOrigin.ROUNDED


@dataclass(frozen=True)
class _Rounded:
    candidate: Candidate
    counts: Counts
    kind_of: tuple[int, ...]
    layout: DealOrder


def _orders(problem: PlacementProblem, costs: PassCosts) -> list[tuple[Device, ...]]:
    """Orders of the classes of equal accelerators.

    As given, the fastest first, then others while there are few.
    """
    held = set(problem.accelerators)
    classes = [tuple(device for device in group if device in held) for group in classes_of(problem, costs)]
    given = problem.accelerators
    by_speed = sorted(
        (group for group in classes if group), key=lambda group: (sum(costs.compute[group[0]]), group[0])
    )
    fastest = tuple(device for group in by_speed for device in group)
    others = (
        [tuple(device for group in some for device in group) for some in permutations(by_speed)]
        if len(by_speed) <= 3
        else []
    )
    return list(dict.fromkeys([given, fastest, *others]))


@dataclass(frozen=True)
class _Aim:
    """What is to be made small, and for which model and machine."""

    problem: PlacementProblem
    costs: PassCosts
    objective: Objective
    kinds: Kinds
    prefers_cpu: frozenset[int]

    def relaxation(self, reserve: Mapping[Device, int], *, streams: bool) -> Relaxation:
        return relaxation(
            self.problem, self.costs, self.objective, kinds=self.kinds, reserve=reserve, streams=streams
        )

    def judge(self, homes: Sequence[Device], in_place: frozenset[int]) -> Candidate | None:
        return judge(self.problem, self.costs, homes, in_place, self.objective)


def _fitted(aim: _Aim, layout: DealOrder, *, most_slots: int) -> _Rounded | None:
    """Round the optimum of the relaxation.

    Where that does not fit, keep room for slots or take fewer residents, and try again.
    """
    reserve = Reserve({}, {})
    for _ in range(_MOST_FITS):
        relaxed = aim.relaxation(reserve.fixed, streams=layout.streams)
        if not relaxed.is_feasible:
            return None
        counts = counts_of(aim.problem, relaxed)
        deal = assign_modes(
            aim.problem, relaxed.kind_of, counts, layout, reserve=reserve.whole, prefers_cpu=aim.prefers_cpu
        )
        for _ in range(_MOST_FITS):
            if deal is None or not deal.unplaced:
                break
            down = STREAM if layout.streams else IN_PLACE
            counts = {
                kind: _demoted(modes, deal.unplaced.get(kind, 0), down) for kind, modes in counts.items()
            }
            deal = assign_modes(
                aim.problem,
                relaxed.kind_of,
                counts,
                layout,
                reserve=reserve.whole,
                prefers_cpu=aim.prefers_cpu,
            )
        if deal is None:
            return None
        found = aim.judge(deal.homes, deal.in_place)
        if found is not None:
            return _Rounded(found, counts, relaxed.kind_of, layout)
        larger = reserve.larger(
            reserve_of(
                aim.problem,
                deal.homes,
                streamed(aim.problem, deal.homes, deal.in_place, most_slots=most_slots),
            )
        )
        if larger == reserve:
            return None
        reserve = larger
    return None


def _dealt_again(aim: _Aim, layout: DealOrder, seed: Candidate) -> _Rounded | None:
    """Return a placement's own counts, spread evenly."""
    kind_of = aim.kinds.kind_of
    solution = seed.solution
    counts: Counts = {}
    for at in (at for unit in aim.problem.units if unit.pin is None for at in unit.members):
        modes = counts.setdefault(kind_of[at], {})
        word = mode_of(solution.homes[at], solution.streaming.execution_devices[at])
        modes[word] = modes.get(word, 0) + 1
    reserve = reserve_of(aim.problem, solution.homes, solution.streaming)
    for _ in range(_MOST_FITS):
        deal = assign_modes(
            aim.problem, kind_of, counts, layout, reserve=reserve.whole, prefers_cpu=aim.prefers_cpu
        )
        if deal is None or deal.unplaced:
            return None
        found = aim.judge(deal.homes, deal.in_place)
        if found is not None:
            return _Rounded(found, counts, kind_of, layout)
        reserve = reserve_of(
            aim.problem, deal.homes, streamed(aim.problem, deal.homes, deal.in_place, most_slots=1)
        )
    return None


def _demoted(modes: Mapping[str, int], many: int, down: str) -> dict[str, int]:
    """Fewer residents, more of what most of the others are; `down` where there are no others."""
    if not many:
        return dict(modes)
    others = {word: count for word, count in modes.items() if word != RESIDENT}
    most = max(others, key=others.__getitem__, default=down)
    return _shifted(modes, RESIDENT, most, many)


def _improved(aim: _Aim, start: _Rounded) -> Candidate:
    """Move atoms of one kind from one way of being served to another while that helps.

    In strides first, then one by one.
    """
    best, counts = start.candidate, start.counts
    tries = _MOST_TRIES // len(aim.problem.atoms)
    has_improved = True
    while has_improved and tries > 0:
        has_improved = False
        reserve = reserve_of(aim.problem, best.solution.homes, best.solution.streaming).whole
        for moved in _moves(counts, streams=start.layout.streams):
            if (tries := tries - 1) < 0:
                break
            deal = assign_modes(
                aim.problem, start.kind_of, moved, start.layout, reserve=reserve, prefers_cpu=aim.prefers_cpu
            )
            if deal is None or deal.unplaced:
                continue
            found = aim.judge(deal.homes, deal.in_place)
            if found is not None and found.key(aim.objective) < best.key(aim.objective):
                best, counts, has_improved = found, moved, True
                break
    return best


def _moves(counts: Counts, *, streams: bool) -> Iterator[Counts]:
    """Other counts near these.

    A stride or one atom of a kind served otherwise, then a resident exchanged for another kind's atom.
    """
    words = [word for word in MODES if streams or "stream" not in word]
    largest = sorted(counts, key=lambda kind: -sum(counts[kind].values()))[:_MOST_KINDS]
    for divisor in (8, 1 << 30):
        for kind in largest:
            stride = max(1, sum(counts[kind].values()) // divisor)
            for source in [word for word in words if counts[kind].get(word, 0) >= stride]:
                for target in [word for word in words if word != source]:
                    yield {**counts, kind: _shifted(counts[kind], source, target, stride)}
    for leaves, comes in permutations(largest, 2):
        if counts[leaves].get(RESIDENT, 0):
            for word in words[1:]:
                if counts[comes].get(word, 0):
                    yield {
                        **counts,
                        leaves: _shifted(counts[leaves], RESIDENT, word, 1),
                        comes: _shifted(counts[comes], word, RESIDENT, 1),
                    }


def _shifted(modes: Mapping[str, int], source: str, target: str, many: int) -> dict[str, int]:
    return {**modes, source: modes[source] - many, target: modes.get(target, 0) + many}
