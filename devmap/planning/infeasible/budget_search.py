"""How many bytes more a device needs: the smallest raise of budgets with which a problem has a solution.

Most tries are decided by bytes alone, which costs next to nothing: too few of them altogether, or so many
that a forward fill holds everything. Only what lies between is solved. Past `_LARGE` units that is left out
too: a raise that no quick test vouches for counts as too small, so that the answer is enough but may be a few
blocks above the least. Whoever suggests a raise plans with it once more.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK
from devmap.config.values.size import Percent
from devmap.planning.placement.fill import FreeCapacity, place_on_accelerators
from devmap.planning.placement.packing import fits_by_bytes
from devmap.planning.placement.partition import Bin, LoadRow, fill
from devmap.planning.placement.solve import solve
from devmap.planning.problem.model import Overflow, PlacementProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.planning.problem.budgets import Budget

__all__ = ["BudgetIncrease"]

_LARGE = 5_000
"""Units past which equal devices are searched once, and raises are not to the byte."""
_TRIES, _TRIES_IF_LARGE = 48, 12


class BudgetIncrease:
    """A problem under other budgets; a class because all tries read the same sums."""

    def __init__(self, problem: PlacementProblem) -> None:
        self.problem = problem
        self.is_large = len(problem.units) > _LARGE

    @cached_property
    def _row(self) -> LoadRow:
        return LoadRow.of(self.problem.resident_bytes)

    @cached_property
    def _keeps_nothing_beside(self) -> bool:
        """Whether the CPU computes whatever lies there without more bytes than that takes."""
        return (
            not self.problem.activation_bytes
            and not any(self.problem.beside_bytes)
            and not any(self.problem.loads.held)
        )

    def smallest_of_each(self) -> dict[Device, int]:
        """Return the fewest bytes more of each device, on it alone, with which there is a solution.

        Without those that none helps.

        To the byte, but for large models. Devices with equal budgets are tried once there.
        """
        found: dict[Device, int] = {}
        seen: dict[tuple[int | None, int], int | None] = {}
        for budget in self.problem.budgets:
            if budget.capacity is None:
                continue
            alike = (
                budget.capacity,
                budget.headroom_bytes if budget.device.is_accelerator else -1 - budget.device.tier,
            )
            if not self.is_large or alike not in seen:
                seen[alike] = self.smallest(budget)
            nbytes = seen[alike]
            if nbytes is not None:
                found[budget.device] = nbytes
        return found

    def smallest(self, *budgets: Budget) -> int | None:
        """Return the fewest bytes more that each of these devices needs.

        A budget may be of one that is not offered yet, at 0 bytes.
        """
        problem = self.problem
        needed = max(sum(problem.resident_bytes), sum(problem.lower_bytes))
        largest = max(problem.loads.slot, default=0)
        shares = [
            budget.headroom.value
            for budget in budgets
            if isinstance(budget.headroom, Percent) and budget.headroom.value < 100
        ]
        kept = max(shares, default=Decimal(0))
        enough = int(2 * (needed + problem.activation_bytes + largest + 1) * 100 / (100 - kept)) + 1
        if not self.helps(*(budget.raised(enough) for budget in budgets)):
            return None
        missing = max(0, -(-(sum(problem.resident_bytes) - sum(problem.limits.values())) // len(budgets)))
        guesses = self._guesses(int(missing * 100 / (100 - kept)), largest)
        low, high = 0, enough
        tries = _TRIES_IF_LARGE if self.is_large else _TRIES
        while tries and high - low > (max(largest, high // 1000, 1) if self.is_large else 1):
            middle = next(guesses, (low + high) // 2)
            if low < middle < high:
                tries -= 1
                if self.helps(*(budget.raised(middle) for budget in budgets)):
                    high = middle
                else:
                    low = middle
        return high

    @staticmethod
    def _guesses(missing: int, largest: int) -> Iterator[int]:
        yield from (
            missing - 1,
            missing,
            missing + largest,
            missing + 3 * largest,
            missing * 21 // 20,
            missing * 5 // 4,
        )

    def helps(self, *budgets: Budget) -> bool:
        """Return whether there is a solution with these budgets for their devices.

        For a large model: whether that is certain.
        """
        by_device = {budget.device: budget for budget in (*self.problem.budgets, *budgets)}
        problem = self.problem.with_budgets(tuple(by_device[device] for device in sorted(by_device)))
        if not fits_by_bytes(problem):
            return False
        if self._fits_in_order(problem):
            return True
        if self.is_large and (self._keeps_nothing_beside or not problem.lower_tiers):
            return False
        return not isinstance(solve(problem), Overflow)

    def _fits_in_order(self, problem: PlacementProblem) -> bool:
        """Return whether a forward fill of the accelerators is surely enough.

        It leaves nothing, or no more than cpu and disk surely take.
        """
        room = self._room_below(problem)
        if problem.one_strategy is not None:
            end = (
                fill(self._row, [Bin(problem.limits[device]) for device in problem.accelerators])[-1]
                if problem.accelerators
                else 0
            )
            return end == len(self._row) or self._row.load(end, len(self._row)) <= room
        rooms = FreeCapacity(problem, {})
        if any(rooms.left(device) < 0 for device in problem.limits):
            return False
        place_on_accelerators(rooms)
        down = [at for at, home in enumerate(rooms.homes) if home is None or not home.is_accelerator]
        if len(problem.units_by_constraint) > 1:
            units, lower = problem.units, problem.lower_tiers
            if any(units[at].pin is not None or not units[at].excluded.isdisjoint(lower) for at in down):
                return False
        return sum([problem.lower_bytes[at] for at in down]) <= room

    def _room_below(self, problem: PlacementProblem) -> int:
        """Return the bytes that cpu and disk hold whatever they are made of.

        With what the CPU then needs to compute all of it.
        """
        if not self._keeps_nothing_beside:
            return 0
        cpu, disk = problem.limits.get(CPU), problem.limits.get(DISK, 0)
        if cpu is None:
            return disk
        largest = max(max(problem.loads.slot, default=0), max(problem.lower_bytes, default=0))
        return max(cpu, disk + cpu - 2 * largest if disk and cpu >= largest else 0)
