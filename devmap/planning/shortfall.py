"""No plan: what is missing in bytes, what binds, and the cheapest changes that fit, each tried."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.config.size import format_bytes
from devmap.errors import ResolutionError
from devmap.planning.budgets import Budget
from devmap.planning.problem import Overflow, Problem
from devmap.planning.solve import solve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from devmap.config.device import Device

__all__ = ["no_plan"]

_MOST_CHANGES = 3
_MOST_TRIES = 24
_LARGE = 20_000
"""Units past which a raise is not searched to the byte but to a sixteenth of what would surely do."""


def no_plan(problem: Problem, overflow: Overflow, solvable_at: Callable[[str], bool], *, dtype: str | None) -> ResolutionError:
    """The error for a problem without a solution; `solvable_at` tells whether another run dtype would have one."""
    raises = sorted(_raises(problem), key=lambda pair: (pair[1], pair[0]))
    changes = [f"raise max_memory of {device} by {format_bytes_up(nbytes)} ({nbytes:,} bytes)" for device, nbytes in raises]
    changes = changes[: _MOST_CHANGES - 1] + list(_offers(problem)) + list(_lower_dtype(solvable_at, dtype)) + changes[_MOST_CHANGES - 1 :]
    needed, offered = _needed(problem), _offered(problem)
    missing = max(needed - offered, min((nbytes for _, nbytes in raises), default=0), 1)
    largest = max(overflow.units, key=problem.resident_bytes.__getitem__, default=None)
    weight = 0 if largest is None else problem.resident_bytes[largest]
    return ResolutionError(
        f"no plan fits: {format_bytes(missing)} are missing ({missing:,} bytes); {_what_binds(problem, overflow, needed, offered)}",
        help="; or ".join(changes[:_MOST_CHANGES]) or "offer more memory, or pin less",
        shortfall_bytes=missing,
        shortfall_by_device={device.plain: max(0, weight - free) for device, free in overflow.free_bytes.items()},
        changes=changes[:_MOST_CHANGES],
    )


def format_bytes_up(nbytes: int) -> str:
    """Bytes for people, never below the number: what is typed in must be enough."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if nbytes >= scale:
            tenths = -(-nbytes * 10 // scale)
            return f"{tenths // 10}.{tenths % 10} {unit}"
    return f"{nbytes} B"


def _needed(problem: Problem) -> int:
    return sum(problem.resident_bytes)


def _offered(problem: Problem) -> int:
    return sum(problem.limit(budget.device) for budget in problem.budgets)


def _what_binds(problem: Problem, overflow: Overflow, needed: int, offered: int) -> str:
    if overflow.reason:
        return overflow.reason
    tiers = ", ".join(str(budget.device) for budget in problem.budgets)
    if needed > offered:
        beside = needed - sum(problem.loads.weight)
        extra = f" ({format_bytes(beside)} of it for the workload)" if beside else ""
        return f"the model needs {format_bytes(needed)}{extra} and {tiers} together may hold {format_bytes(offered)}"
    path = problem.atoms[problem.units[overflow.units[0]].members[0]].path
    return (
        f"{tiers} together may hold {format_bytes(offered)} and the model needs {format_bytes(needed)}, "
        f"but '{path}' fits on none whole beside the rest and the room to stream"
    )


def _raises(problem: Problem) -> Iterator[tuple[Device, int]]:
    """For each device the smallest raise of its `max_memory` that has a plan."""
    enough = 2 * (_needed(problem) + problem.activation_bytes) + sum(max(problem.loads.slot, default=0) for _ in range(2)) + 1
    for budget in problem.budgets:
        if budget.capacity is None or not _fits(problem, budget, enough):
            continue
        low, high = 0, enough
        tolerance = enough // 16 if len(problem.units) > _LARGE else 0
        tries = 0
        while high - low > 1 + tolerance and (tries := tries + 1) < 2 * _MOST_TRIES:
            middle = (low + high) // 2
            if _fits(problem, budget, middle):
                high = middle
            else:
                low = middle
        yield budget.device, high


def _fits(problem: Problem, budget: Budget, nbytes: int) -> bool:
    budgets = tuple(one.raised(nbytes) if one == budget else one for one in problem.budgets)
    return not isinstance(solve(replace(problem, budgets=budgets)), Overflow)


def _offers(problem: Problem) -> Iterator[str]:
    """Tiers that are not offered and would do."""
    offered = {budget.device for budget in problem.budgets}
    size = _needed(problem) + 2 * max(problem.loads.slot, default=0)
    for device in (CPU, DISK):
        if device in offered:
            continue
        budgets = tuple(sorted((*problem.budgets, Budget(device, size)), key=lambda budget: budget.device))
        found = solve(replace(problem, budgets=budgets))
        if not isinstance(found, Overflow):
            nbytes = sum(problem.loads.weight[at] for at, home in enumerate(found.homes) if home == device)
            yield f"offer {device} in max_memory: {format_bytes_up(nbytes)} would live there"


_LOWER = {"float64": "float32", "float32": "bfloat16", None: "bfloat16"}


def _lower_dtype(solvable_at: Callable[[str], bool], dtype: str | None) -> Iterator[str]:
    lower = _LOWER.get(dtype)
    if lower is not None and solvable_at(lower):
        yield f"run the model in {lower} (model.dtype)"
