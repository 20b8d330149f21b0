"""No plan: what is missing in bytes, over all and on each device, what binds.

And the cheapest changes that fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_names
from devmap.config.values.size import format_bytes
from devmap.errors import ResolutionError
from devmap.planning.infeasible.budget_search import BudgetIncrease
from devmap.planning.infeasible.suggestions import cheapest_changes
from devmap.planning.placement.packing import has_room, narrowest
from devmap.planning.problem.model import NO_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.device import Device
    from devmap.planning.problem.model import Overflow, PlacementProblem

__all__ = ["no_plan"]

_MOST_DEVICES = 4


def no_plan(
    config: PlacementConfig,
    problem: PlacementProblem,
    overflow: Overflow,
    fits: Callable[[PlacementConfig], bool],
    *,
    machine: MachineProfile | None = None,
) -> ResolutionError:
    """Return the error for a problem without a solution.

    `fits` plans with another config and says whether that went well.

    `machine` is the one that the config names, whose memory no suggested budget goes past.
    """
    increase = BudgetIncrease(problem)
    increases = increase.smallest_of_each()
    changes = cheapest_changes(config, increase, increases, fits, machine=machine)
    needed, offered = sum(problem.resident_bytes), sum(problem.limits.values())
    missing = max(needed - offered, min((_usable(problem, *one) for one in increases.items()), default=0), 1)
    alone = (
        f"; alone {_raised_alone(increases)}"
        if len(increases) > 1 or any(nbytes != missing for nbytes in increases.values())
        else ""
    )
    how_much = f"{format_bytes(missing)} are missing ({missing:,} bytes{alone}); "
    return ResolutionError(
        "no plan fits: "
        + (how_much if needed > offered or overflow.reason else "")
        + _limiting_factors(problem, overflow, increases),
        help=f"try one with {' '.join(map(_as_option, changes[0].overrides))}"
        if changes
        else "offer more memory, or pin less",
        shortfall_bytes=missing,
        shortfall_by_device={device.plain: nbytes for device, nbytes in increases.items()},
        changes=[change.sentence for change in changes],
        overrides=[change.overrides for change in changes],
    )


def _as_option(override: str) -> str:
    return (
        f"--set {override}"
        if override.replace("=", "").replace(".", "").replace("_", "").isalnum()
        else f"--set '{override}'"
    )


def _raised_alone(increases: Mapping[Device, int]) -> str:
    """Return what each device alone would need more; those that need the same in one word."""
    by_bytes: dict[int, list[Device]] = {}
    for device, nbytes in increases.items():
        by_bytes.setdefault(nbytes, []).append(device)
    parts = [
        f"{format_bytes(nbytes)} on {device_names(alike, 'or')}" for nbytes, alike in sorted(by_bytes.items())
    ]
    return ", or ".join(parts[:_MOST_DEVICES])


def _limiting_factors(problem: PlacementProblem, overflow: Overflow, increases: Mapping[Device, int]) -> str:
    if overflow.reason:
        return overflow.reason
    needed, offered = sum(problem.resident_bytes), sum(problem.limits.values())
    beside = needed - sum(problem.loads.weight)
    extra = f" ({format_bytes(beside)} of it for the workload)" if beside else ""
    devices = tuple(problem.limits)
    together = " together" if len(devices) > 1 else ""
    if needed > offered:
        return (
            f"the model needs {format_bytes(needed)}{extra} and {device_names(devices)}{together} may hold "
            f"{format_bytes(offered)}{_kept(problem)}"
        )
    alone = f"; a larger budget alone would do: {_raised_alone(increases)}" if increases else ""
    narrow = narrowest(problem)
    if narrow is not None:
        some, nbytes = narrow
        what = f"what pins and forbid leave only to {device_names(some)} takes {format_bytes(nbytes)}"
        return (
            f"{what}, and {'that' if len(some) == 1 else 'they together'} may hold "
            f"{format_bytes(_held(problem, some))}{alone}"
        )
    too_large = next(
        (at for at, unit in enumerate(problem.units) if unit.pin is None and not has_room(problem, at)), None
    )
    if too_large is not None:
        return (
            f"{_unit(problem, too_large)} is more than any device may "
            f"hold{_open_to(problem, too_large)}{alone}"
        )
    to_run = ", with the room that those on cpu or disk take to run," if problem.lower_tiers else ""
    tried = (
        f"every way to place its blocks whole{to_run} was ruled out"
        if overflow.is_proven
        else f"no way to place its blocks whole{to_run} was found; the search was given up after "
        f"{overflow.steps:,} steps"
    )
    has = (
        f"{device_names(devices)}{together} may hold "
        f"{'any number of bytes' if offered >= NO_LIMIT else format_bytes(offered)}"
    )
    return (
        "total memory is sufficient, but the model's indivisible blocks cannot be packed into it: "
        f"the model needs {format_bytes(needed)}{extra}, {has}, and {tried}{alone}"
    )


def _usable(problem: PlacementProblem, device: Device, nbytes: int) -> int:
    """Return what is left of a raise after headroom."""
    budget = next(one for one in problem.budgets if one.device == device)
    return (budget.raised(nbytes).usable_bytes or 0) - (budget.usable_bytes or 0)


def _held(problem: PlacementProblem, devices: Iterable[Device]) -> int:
    return sum(problem.limits[device] for device in devices)


def _kept(problem: PlacementProblem) -> str:
    """Return what budgets are left after, where that is less than they say."""
    headroom = sum(budget.headroom_bytes for budget in problem.budgets)
    kept = [f"{format_bytes(headroom)} of headroom"] if headroom else []
    if problem.activation_bytes:
        kept.append(f"{format_bytes(problem.activation_bytes)} of activations on each accelerator")
    return f" beside {' and '.join(kept)}" if kept else ""


def _unit(problem: PlacementProblem, at: int) -> str:
    """Return a unit and what it takes."""
    members = problem.units[at].members
    joined = f" with {len(members) - 1} more that ties or same_device join to it" if len(members) > 1 else ""
    return (
        f"'{problem.atoms[members[0]].path}'{joined} takes {format_bytes(problem.resident_bytes[at])}, which"
    )


def _open_to(problem: PlacementProblem, at: int) -> str:
    """Return the most that it may take up on one device, and where it must not lie."""
    excluded = problem.units[at].excluded
    most = max((limit for device, limit in problem.limits.items() if device not in excluded), default=0)
    kept_off = f" (it must not lie on {device_names(sorted(excluded), 'or')})" if excluded else ""
    return f": {format_bytes(most)}{kept_off}"
