"""The bound: what no placement of a model on a machine can beat.

And the fractional placement that comes nearest to it.

Every atom is in one *mode*: resident on an accelerator; on cpu or disk and streamed to an accelerator; on
cpu, or on disk, and computed by the CPU. A mode takes time of some resources (computing, each accelerator's
copies, the disk, host memory) and space of some tiers. A placement with pass time T has, for every resource
r, time_r <= T: blocks are computed one after another, so the sum of all compute is one such resource for
`latency`; for `throughput` each device's compute is one for itself. And for every tier s, space_s <= limit_s.

The bound is weak duality. Take any prices a_r >= 0 of time that add up to 1, and any prices b_s >= 0 of
space. For every placement

    T >= sum_r a_r time_r >= sum_r a_r time_r + sum_s b_s (space_s - limit_s)
       = sum over atoms of (a . time + b . space of the atom's mode) - b . limit
      >= sum over atoms of (the least such sum over all modes)       - b . limit,

where the first step holds because an average is no larger than the largest, the second because no tier is
over its limit, and the last because each atom is free to take its cheapest mode. The last line needs no
placement. So every choice of prices gives a true lower bound, however the prices were found; a poor choice is
only a weaker one. The best prices are those of the linear program in which atoms may be split over modes: the
LP relaxation. Equal accelerators are one class with their limits added up and their times averaged, which
is again a relaxation (the average of equal resources is no larger than the largest).

Slots, whole atoms, ties, pins, forbidden devices and the order are left out: leaving a constraint out never
raises the least value.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from devmap.config.values.device import CPU, DISK, Device
from devmap.config.values.strategy import Objective
from devmap.planning.fastest.simplex import minimise
from devmap.planning.problem.model import NO_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["Kinds", "Mode", "Relaxation", "bound_of", "classes_of", "kinds_of", "relaxation"]

_MOST_KINDS = 16
"""Kinds of atoms that the linear program sees; the largest. The bound itself counts all."""


class Mode(NamedTuple):
    """How an atom is served: where it lives and where it is executed.

    Accelerators by the first device of their class.
    """

    home: Device
    executes_on: Device


@dataclass(frozen=True)
class Relaxation:
    """The optimum of the relaxation.

    Its bound in femtoseconds, and the share of each kind's atoms in each mode.
    """

    bound: int
    kind_of: tuple[int, ...]
    """For each atom the number of its kind: atoms that cost the same everywhere."""
    shares: Mapping[int, Mapping[Mode, float]] = field(default_factory=dict)
    """By kind; the smallest kinds may be absent."""
    is_feasible: bool = True


class Kinds(NamedTuple):
    """Atoms that cost the same everywhere are of one kind."""

    kind_of: tuple[int, ...]
    """For each atom the number of its kind."""
    first: tuple[int, ...]
    """Of each kind the first atom."""
    counts: tuple[int, ...]


class _Column(NamedTuple):
    mode: Mode
    times: tuple[float, ...]
    spaces: tuple[float, ...]


class _Model(NamedTuple):
    kind_of: tuple[int, ...]
    counts: tuple[int, ...]
    columns: tuple[tuple[_Column, ...], ...]
    """Of each kind."""
    limits: tuple[float, ...]


def bound_of(problem: PlacementProblem, costs: PassCosts, objective: Objective = Objective.LATENCY) -> int:
    """Femtoseconds that no placement of this model on these devices can beat.

    Rates that are not known count as infinite.
    """
    return relaxation(problem, costs, objective).bound


def relaxation(
    problem: PlacementProblem,
    costs: PassCosts,
    objective: Objective,
    *,
    kinds: Kinds | None = None,
    reserve: Mapping[Device, int] | None = None,
    streams: bool = True,
) -> Relaxation:
    """Return the optimum of the relaxation.

    `kinds` are those of this problem and these costs, where they are known already.

    With `reserve`, bytes kept free for slots, or without `streams`, its shares are for rounding and its bound
    is not one for all plans.
    """
    model = _model(
        problem, costs, objective, kinds or kinds_of(problem, costs), reserve or {}, streams=streams
    )
    if not model.columns or not all(model.columns):
        return Relaxation(0, model.kind_of, is_feasible=False)
    time_scale = sum(
        count * min(max(column.times) for column in columns)
        for count, columns in zip(model.counts, model.columns, strict=True)
    )
    space_scale = max(1.0, float(sum(problem.loads.weight)))
    if not time_scale:
        return Relaxation(0, model.kind_of)
    # The program is solved for the kinds that weigh most. Any prices give a true bound, and `_dual` counts
    # every kind, so leaving some out costs sharpness and not truth.
    chosen = sorted(
        range(len(model.counts)), key=lambda kind: -model.counts[kind] * max(map(_size, model.columns[kind]))
    )[:_MOST_KINDS]
    optimum, shares = _solve(model, chosen, time_scale, space_scale)
    rows = len(model.columns[0][0].times)
    best = max(
        _dual(model, optimum[0], optimum[1], time_scale, space_scale),
        *(
            _dual(
                model,
                [float(row == at) for at in range(rows)],
                [0.0] * len(model.limits),
                time_scale,
                space_scale,
            )
            for row in range(rows)
        ),
    )
    # Floating point is not exact: a billionth less, so that the bound stays one.
    return Relaxation(max(0, int(best * (1 - 1e-9))), model.kind_of, shares, optimum[2])


def classes_of(problem: PlacementProblem, costs: PassCosts) -> tuple[tuple[Device, ...], ...]:
    """Return the offered accelerators, those together that cost the same and may hold as much."""
    found: dict[tuple[object, ...], list[Device]] = {}
    for device in (budget.device for budget in problem.budgets if budget.device.is_accelerator):
        key = (id(costs.compute.get(device)), id(costs.copy.get(device)), problem.limit(device))
        found.setdefault(key, []).append(device)
    return tuple(map(tuple, found.values()))


def _size(column: _Column) -> float:
    return max(column.times) + 1e-6 * sum(column.spaces)


def kinds_of(problem: PlacementProblem, costs: PassCosts) -> Kinds:
    """Atoms by what they cost. Linear in atoms."""
    numbers: dict[tuple[object, ...], int] = {}
    kind_of = [
        numbers.setdefault(signature, len(numbers))
        for signature in _signatures(problem, costs, classes_of(problem, costs))
    ]
    first = dict(zip(reversed(kind_of), reversed(range(len(kind_of))), strict=True))
    counts = Counter(kind_of)
    return Kinds(
        tuple(kind_of),
        tuple([first[kind] for kind in range(len(numbers))]),
        tuple([counts[kind] for kind in range(len(numbers))]),
    )


def _model(
    problem: PlacementProblem,
    costs: PassCosts,
    objective: Objective,
    kinds: Kinds,
    reserve: Mapping[Device, int],
    *,
    streams: bool,
) -> _Model:
    """Rows of time: compute (one, or one a class and the CPU), copies a class, the disk, host memory.

    Rows of space: classes, cpu, disk.
    """
    classes = classes_of(problem, costs)
    offered = {budget.device for budget in problem.budgets}
    limits = [
        float(sum(max(0, problem.limit(device) - reserve.get(device, 0)) for device in group))
        for group in classes
    ]
    limits += [
        float(max(0, problem.limit(tier) - reserve.get(tier, 0))) if tier in offered else float(NO_LIMIT)
        for tier in (CPU, DISK)
    ]
    columns = tuple(
        [_columns(problem, costs, classes, offered, at, objective, streams=streams) for at in kinds.first]
    )
    return _Model(kinds.kind_of, kinds.counts, columns, tuple(limits))


def _signatures(
    problem: PlacementProblem, costs: PassCosts, classes: Sequence[tuple[Device, ...]]
) -> list[tuple[object, ...]]:
    loads = problem.loads
    rows = [
        loads.weight,
        loads.buffers,
        loads.slot,
        loads.held,
        loads.run,
        loads.frozen,
        costs.host_copy,
        costs.host_compute,
    ]
    rows += [costs.compute[group[0]] for group in classes if group[0] in costs.compute]
    rows += [costs.compute[CPU]] if CPU in costs.compute else []
    return list(zip(*rows, strict=True))


def _columns(
    problem: PlacementProblem,
    costs: PassCosts,
    classes: Sequence[tuple[Device, ...]],
    offered: set[Device],
    at: int,
    objective: Objective,
    *,
    streams: bool,
) -> tuple[_Column, ...]:
    """Return the modes of one atom with what they take."""
    loads = problem.loads
    stays = loads.run[at] + loads.buffers[at]
    lower = loads.weight[at] + loads.held[at] - loads.buffers[at]
    many = len(classes)
    found = []

    def column(mode: Mode, place: int, *, copied: bool) -> None:
        """`place` is the class that executes, or `many` for the CPU."""
        device = mode.executes_on
        count = len(classes[place]) if place < many else 1
        compute = costs.compute[device][at] if device in costs.compute else 0
        computing = [0.0] * (1 if objective is Objective.LATENCY else many + 1)
        computing[0 if objective is Objective.LATENCY else place] = (
            compute if objective is Objective.LATENCY else compute / count
        )
        copying = [0.0] * many
        if copied and device in costs.copy:
            copying[place] = costs.copy[device][at] / count
        reading = float(costs.disk[at]) if mode.home == DISK and costs.disk is not None else 0.0
        memory = float(costs.host_compute[at] if place == many else costs.host_copy[at] if copied else 0)
        spaces = [0.0] * (many + 2)
        # Weights lie at home; what the workload keeps, and buffers, lie where the atom is executed.
        if mode.home.is_accelerator:
            spaces[place] = loads.resident(at)
        else:
            spaces[many + (mode.home == DISK)] += lower
            if place < many or mode.home == CPU:
                spaces[place] += stays
        found.append(_Column(mode, (*computing, *copying, reading, memory), tuple(spaces)))

    for place, group in enumerate(classes):
        column(Mode(group[0], group[0]), place, copied=False)
        for tier in (CPU, DISK):
            if streams and tier in offered and loads.frozen[at] and problem.limit(group[0]) > 0:
                column(Mode(tier, group[0]), place, copied=True)
    for tier in (CPU, DISK):
        if tier in offered and (tier == CPU or loads.frozen[at]):
            column(Mode(tier, CPU), many, copied=False)
    return tuple(found)


def _solve(
    model: _Model, chosen: Sequence[int], time_scale: float, space_scale: float
) -> tuple[tuple[list[float], list[float], bool], dict[int, dict[Mode, float]]]:
    """Return the prices of time and space, whether everything fits, and the shares of modes."""
    variables = [(kind, column) for kind in chosen for column in model.columns[kind]]
    amounts = [model.counts[kind] for kind, _ in variables]
    rows, tiers = len(variables[0][1].times), len(model.limits)
    equal = [([*(float(kind == one) for kind, _ in variables), 0.0], 1.0) for one in chosen]
    below: list[tuple[Sequence[float], float]] = []
    for row in range(rows):
        taken = [
            count * column.times[row] / time_scale
            for count, (_, column) in zip(amounts, variables, strict=True)
        ]
        below.append(([*taken, -1.0], 0.0))
    for tier in range(tiers):
        taken = [
            count * column.spaces[tier] / space_scale
            for count, (_, column) in zip(amounts, variables, strict=True)
        ]
        below.append(([*taken, 0.0], model.limits[tier] / space_scale))
    optimum = minimise([*[0.0] * len(variables), 1.0], equal, below)
    shares: dict[int, dict[Mode, float]] = {}
    for (kind, column), value in zip(variables, optimum.values, strict=False):
        if value > 1e-9:
            shares.setdefault(kind, {})[column.mode] = value
    total = sum(optimum.prices[:rows]) or 1.0
    return (
        [price / total for price in optimum.prices[:rows]],
        list(optimum.prices[rows:]),
        optimum.is_feasible,
    ), shares


def _dual(
    model: _Model,
    time_prices: Sequence[float],
    space_prices: Sequence[float],
    time_scale: float,
    space_scale: float,
) -> float:
    """Return the bound that these prices give, in femtoseconds: the last line of the module's proof."""
    if sum(time_prices) <= 0:
        return 0.0
    per_byte = [price * time_scale / space_scale for price in space_prices]
    total = -sum(price * limit for price, limit in zip(per_byte, model.limits, strict=True) if price)
    for count, columns in zip(model.counts, model.columns, strict=True):
        total += count * min(
            sum(price * time for price, time in zip(time_prices, column.times, strict=True))
            + sum(price * space for price, space in zip(per_byte, column.spaces, strict=True))
            for column in columns
        )
    return total
