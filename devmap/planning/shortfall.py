"""No plan: what is missing in bytes, over all and on each device, what binds, and the cheapest changes that fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.size import format_bytes
from devmap.errors import ResolutionError
from devmap.planning.changes import cheapest_changes, smallest_raises

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.config.device import Device
    from devmap.config.model import MachineProfile, PlacementConfig
    from devmap.planning.problem import Overflow, Problem

__all__ = ["no_plan"]

_MOST_DEVICES = 4


def no_plan(
    config: PlacementConfig,
    problem: Problem,
    overflow: Overflow,
    fits: Callable[[PlacementConfig], bool],
    *,
    machine: MachineProfile | None = None,
) -> ResolutionError:
    """The error for a problem without a solution; `fits` plans with another config and says whether that went well.

    `machine` is the one that the config names, whose memory no suggested budget goes past.
    """
    raises = smallest_raises(problem)
    changes = cheapest_changes(config, problem, raises, fits, machine=machine)
    needed = sum(problem.resident_bytes)
    offered = sum(problem.limit(budget.device) for budget in problem.budgets)
    missing = max(needed - offered, min(raises.values(), default=0), 1)
    return ResolutionError(
        f"no plan fits: {format_bytes(missing)} are missing ({missing:,} bytes{_on_each(raises)}); "
        f"{_what_binds(problem, overflow, needed, offered)}",
        help=f"try one with {' '.join(map(_as_option, changes[0].overrides))}" if changes else "offer more memory, or pin less",
        shortfall_bytes=missing,
        shortfall_by_device={device.plain: nbytes for device, nbytes in raises.items()},
        changes=[change.sentence for change in changes],
        overrides=[change.overrides for change in changes],
    )


def _as_option(override: str) -> str:
    return f"--set {override}" if override.replace("=", "").replace(".", "").replace("_", "").isalnum() else f"--set '{override}'"


def _on_each(raises: Mapping[Device, int]) -> str:
    """What each device alone would need more; neighbours that need the same in one word."""
    by_bytes: dict[int, list[Device]] = {}
    for device, nbytes in raises.items():
        by_bytes.setdefault(nbytes, []).append(device)
    if len(raises) < 2:
        return ""
    parts = [f"{format_bytes(nbytes)} on {_listed(alike)}" for nbytes, alike in by_bytes.items()]
    more = f" or {len(parts) - _MOST_DEVICES} more" if len(parts) > _MOST_DEVICES else ""
    return f"; alone {', '.join(parts[:_MOST_DEVICES])}{more}"


def _listed(devices: Sequence[Device]) -> str:
    *first, last = map(str, devices)
    return f"{', '.join(first)} or {last}" if first else last


def _what_binds(problem: Problem, overflow: Overflow, needed: int, offered: int) -> str:
    if overflow.reason:
        return overflow.reason
    tiers = ", ".join(str(budget.device) for budget in problem.budgets)
    if needed > offered:
        beside = needed - sum(problem.loads.weight)
        extra = f" ({format_bytes(beside)} of it for the workload)" if beside else ""
        return f"the model needs {format_bytes(needed)}{extra} and {tiers} together may hold {format_bytes(offered)}"
    unit = problem.units[overflow.units[0]]
    path = problem.atoms[unit.members[0]].path
    joined = f" with {len(unit.members) - 1} more that ties or same_device join to it" if len(unit.members) > 1 else ""
    barred = f", which must not lie on {', '.join(map(str, sorted(unit.barred)))}," if unit.barred else ""
    return (
        f"{tiers} together may hold {format_bytes(offered)} and the model needs {format_bytes(needed)}, "
        f"but '{path}'{joined}{barred} fits on none whole beside the rest and the room to stream"
    )
