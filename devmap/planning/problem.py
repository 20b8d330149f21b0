"""What is to be solved, and what a solution says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.device import Device
    from devmap.inventory.atoms import Atom
    from devmap.planning.budgets import Budget
    from devmap.planning.order import AtomLoads, TieCopy, Unit

__all__ = ["NO_LIMIT", "Overflow", "Problem", "Slots", "Solution", "Streaming"]

NO_LIMIT = 1 << 62
"""Bytes of a disk that nobody limits: more than any model has."""


@dataclass(frozen=True)
class Problem:
    """One model to be placed on the offered devices."""

    atoms: tuple[Atom, ...]
    units: tuple[Unit, ...]
    loads: AtomLoads
    budgets: tuple[Budget, ...]
    activation_bytes: int = 0
    """Kept free on every device that executes something."""
    copies: tuple[TieCopy, ...] = ()

    def limit(self, device: Device) -> int:
        """Bytes that weights, per-module charges and slots may take on a device; never negative."""
        usable = next(budget.usable_bytes for budget in self.budgets if budget.device == device)
        if usable is None:
            return NO_LIMIT
        return max(0, usable - self.activation_bytes) if device.is_accelerator else usable

    @property
    def accelerators(self) -> tuple[Device, ...]:
        """The accelerators in order that have any room; all of them where none has (they still hold what has no bytes)."""
        offered = tuple(budget.device for budget in self.budgets if budget.device.is_accelerator)
        return tuple(device for device in offered if self.limit(device) > 0) or offered

    @property
    def lower_tiers(self) -> tuple[Device, ...]:
        """The tiers cpu and disk, where they are offered."""
        return tuple(budget.device for budget in self.budgets if not budget.device.is_accelerator)

    @cached_property
    def resident_bytes(self) -> tuple[int, ...]:
        """Bytes of each unit on an accelerator."""
        loads = self.loads
        atoms = [weight + held + run for weight, held, run in zip(loads.weight, loads.held, loads.run, strict=True)]
        return tuple(_sum_over(atoms, unit.members) for unit in self.units)

    @cached_property
    def lower_bytes(self) -> tuple[int, ...]:
        """Bytes of each unit on cpu or disk when it is streamed: without the buffers that stay where it is executed."""
        loads = self.loads
        atoms = [weight + held - buffers for weight, held, buffers in zip(loads.weight, loads.held, loads.buffers, strict=True)]
        return tuple(_sum_over(atoms, unit.members) for unit in self.units)

    def on_cpu(self, in_place: frozenset[int]) -> tuple[int, ...]:
        """Bytes of each unit on cpu, where the atoms `in_place` are computed there too."""
        if not in_place:
            return self.lower_bytes
        loads = self.loads
        more = [loads.run[at] + loads.buffers[at] if at in in_place else 0 for at in range(len(self.atoms))]
        return tuple(nbytes + _sum_over(more, unit.members) for nbytes, unit in zip(self.lower_bytes, self.units, strict=True))


def _sum_over(amounts: Sequence[int], members: Sequence[int]) -> int:
    return amounts[members[0]] if len(members) == 1 else sum(amounts[at] for at in members)


@dataclass(frozen=True, slots=True)
class Slots:
    """Room to stream on one device."""

    count: int
    slot_bytes: int
    atom: int
    """The largest atom that streams there."""
    streamed: int
    """How many stream there."""

    @property
    def nbytes(self) -> int:
        """All slots together."""
        return self.count * self.slot_bytes


@dataclass(frozen=True)
class Streaming:
    """Where each atom is executed, and what that takes on each device beyond what lives there."""

    executes: tuple[Device, ...]
    slots: Mapping[Device, Slots]
    needs: Mapping[Device, int]
    """Slots, buffers that stay, what the workload keeps for streamed atoms. Bytes."""
    in_place: frozenset[int]
    """Atoms that the CPU computes where they lie."""


@dataclass(frozen=True)
class Solution:
    """Homes and executing devices for every atom, within every budget."""

    homes: tuple[Device, ...]
    streaming: Streaming
    gaps: tuple[int, ...] = ()
    """Units that went back to an earlier device because nothing else had room."""


@dataclass(frozen=True)
class Overflow:
    """Why there is no solution."""

    units: tuple[int, ...]
    """Units that found no place, in order."""
    missing_bytes: int
    free_bytes: Mapping[Device, int] = field(default_factory=dict)
    """What each device had left when the first of them was to be placed."""
    reason: str = ""
