"""A plan with what is worth showing beside it.

Its runs, why each lies where it does, and the predicted pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.planning.resolve import resolve, resolved
from devmap.planning.stages.cluster import is_cluster
from devmap.planning.why.deciding_factors import SolvedCapacity, deciding_factors, left_before

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Placement, Plan
    from devmap.planning.fastest.timeline import Timeline
    from devmap.planning.resolve import Resolved
    from devmap.planning.why.deciding_factors import BytesLeft, DecidingFactor

__all__ = ["ExplainedRun", "PlanOverview", "overview"]

_MOST_EXPLAINED = 60
"""Runs that are explained: each costs a walk over the model's units."""


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """Neighbouring atoms that live and run alike, and what decided about the first of them."""

    start: int
    """The number of its first placement."""
    end: int
    """The number of the first placement after it."""
    home: Device
    executes_on: Device
    left: tuple[BytesLeft, ...] = ()
    """What each device had left when its first atom was to be placed."""
    factors: tuple[DecidingFactor, ...] = ()


@dataclass(frozen=True)
class PlanOverview:
    """A plan and how it came about."""

    plan: Plan
    runs: tuple[ExplainedRun, ...]
    """In the model's order; the first 60 are explained."""
    timeline: Timeline | None
    """None where the machine's rates are not known."""


def overview(
    config: PlacementConfig, inventory: Inventory, *, machine: MachineProfile | None = None
) -> PlanOverview:
    """Resolve a config, explain the runs of its plan, and play the predicted pass.

    Raises:
        ResolutionError, DeviceMapError: as `resolve`.
    """
    if config.takes_turns or is_cluster(config, machine):
        plan = resolve(config, inventory, machine=machine)
        runs = [ExplainedRun(*run) for run in _alike(plan.placements)]
        return PlanOverview(plan, tuple(runs), None)
    found = resolved(config, inventory, machine=machine)
    pass_timeline = None
    if found.costs is not None:
        from devmap.planning.fastest.timeline import timeline  # noqa: PLC0415 - only where rates are known

        pass_timeline = timeline(found.costs, found.solution.homes, found.solution.streaming)
    return PlanOverview(found.plan, tuple(_runs(found)), pass_timeline)


def _runs(found: Resolved) -> Iterator[ExplainedRun]:
    rooms = SolvedCapacity.of(found.question.problem, found.plan)
    for count, run in enumerate(_alike(found.plan.placements)):
        explained = count < _MOST_EXPLAINED
        yield ExplainedRun(
            *run,
            left_before(rooms, run[0]) if explained else (),
            tuple(deciding_factors(found.question, found.plan, rooms, run[0])) if explained else (),
        )


def _alike(placements: Sequence[Placement]) -> Iterator[tuple[int, int, Device, Device]]:
    """Yield neighbours that live and run alike: their first, the first after them, and the two devices."""
    start = 0
    for end in range(1, len(placements) + 1):
        first = placements[start]
        if end < len(placements) and (placements[end].home, placements[end].executes_on) == (
            first.home,
            first.executes_on,
        ):
            continue
        yield start, end, first.home, first.executes_on
        start = end
