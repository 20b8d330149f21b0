"""What is to be solved, and what a solution says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import add
from typing import TYPE_CHECKING

from devmap.planning.problem.units import SingleUnits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.config.values.strategy import Strategy
    from devmap.inventory.atoms import Atom
    from devmap.planning.problem.budgets import Budget
    from devmap.planning.problem.units import AtomLoads, PlacementUnit, TieCopy

__all__ = ["NO_LIMIT", "Overflow", "PlacementProblem", "Slots", "Solution", "Streaming", "device_runs"]

NO_LIMIT = 1 << 62
"""Bytes of a disk that nobody limits: more than any model has."""


@dataclass(frozen=True)
class PlacementProblem:
    """One model to be placed on the offered devices."""

    atoms: tuple[Atom, ...]
    units: Sequence[PlacementUnit]
    loads: AtomLoads
    budgets: tuple[Budget, ...]
    activation_bytes: int = 0
    """Kept free on every device that executes something."""
    copies: tuple[TieCopy, ...] = ()

    @cached_property
    def limits(self) -> Mapping[Device, int]:
        """Bytes that weights, per-module charges and slots may take on each offered device.

        Never negative.
        """
        kept = {True: self.activation_bytes, False: 0}
        return {
            budget.device: NO_LIMIT
            if budget.usable_bytes is None
            else max(0, budget.usable_bytes - kept[budget.device.is_accelerator])
            for budget in self.budgets
        }

    def limit(self, device: Device) -> int:
        """Return the bytes that weights, per-module charges and slots may take on an offered device."""
        return self.limits[device]

    @cached_property
    def accelerators(self) -> tuple[Device, ...]:
        """The accelerators in order that have any room.

        All of them where none has (they still hold what has no bytes).
        """
        offered = tuple(budget.device for budget in self.budgets if budget.device.is_accelerator)
        return tuple(device for device in offered if self.limits[device] > 0) or offered

    @property
    def lower_tiers(self) -> tuple[Device, ...]:
        """The tiers cpu and disk, where they are offered."""
        return tuple(budget.device for budget in self.budgets if not budget.device.is_accelerator)

    @cached_property
    def resident_bytes(self) -> tuple[int, ...]:
        """Bytes of each unit on an accelerator."""
        loads = self.loads
        atoms = loads.weight
        if any(loads.held) or any(loads.run):
            atoms = tuple(map(sum, zip(loads.weight, loads.held, loads.run, strict=True)))
        return self.per_unit(atoms)

    @cached_property
    def lower_bytes(self) -> tuple[int, ...]:
        """Bytes of each unit on cpu or disk when it is streamed.

        Without the buffers that stay where it is executed.
        """
        loads = self.loads
        atoms = loads.weight
        if any(loads.held) or any(loads.buffers):
            atoms = tuple(
                weight + held - stays
                for weight, held, stays in zip(loads.weight, loads.held, loads.buffers, strict=True)
            )
        return self.per_unit(atoms)

    @cached_property
    def beside_bytes(self) -> tuple[int, ...]:
        """For each atom what a device keeps beside the slots when it is streamed there.

        Its buffers, and what the workload keeps.
        """
        run, stays = self.loads.run, self.loads.buffers
        return tuple(map(add, run, stays)) if any(run) or any(stays) else (0,) * len(run)

    @property
    def one_strategy(self) -> Strategy | None:
        """Who places everything, where nothing is pinned, excluded or joined."""
        return self.units.strategy if isinstance(self.units, SingleUnits) else None

    @cached_property
    def is_plain(self) -> bool:
        """Whether each atom is a unit of its own."""
        return len(self.units) == len(self.atoms)

    @cached_property
    def units_by_constraint(self) -> Mapping[tuple[Device | None, frozenset[Device]], Sequence[int]]:
        """Units by their pin and what they are excluded from."""
        if self.one_strategy is not None:
            return {(None, frozenset()): range(len(self.units))}
        found: dict[tuple[Device | None, frozenset[Device]], list[int]] = {}
        nothing: frozenset[Device] = frozenset()
        plain = found.setdefault((None, nothing), [])
        for at, unit in enumerate(self.units):
            if unit[1] is None and not unit[3]:
                plain.append(at)
            else:
                found.setdefault((unit[1], unit[3]), []).append(at)
        return {constraint: members for constraint, members in found.items() if members}

    def with_budgets(self, budgets: tuple[Budget, ...]) -> PlacementProblem:
        """Return the same model on other budgets; what was added up for its units is not added up again."""
        other = replace(self, budgets=budgets)
        kept = ("resident_bytes", "lower_bytes", "beside_bytes", "is_plain", "units_by_constraint")
        vars(other).update({name: vars(self)[name] for name in kept if name in vars(self)})
        return other

    def per_unit(self, amounts: Sequence[int]) -> tuple[int, ...]:
        """Amounts of atoms added up to units."""
        if self.is_plain:
            return tuple(amounts)
        return tuple(
            [
                amounts[unit[0][0]] if len(unit[0]) == 1 else sum([amounts[at] for at in unit[0]])
                for unit in self.units
            ]
        )

    def on_cpu(self, in_place: Iterable[int]) -> tuple[int, ...]:
        """Return the bytes of each unit on cpu, where the atoms `in_place` are computed there too."""
        if not any(self.beside_bytes):
            return self.lower_bytes
        more = [0] * len(self.atoms)
        for at in in_place:
            more[at] = self.beside_bytes[at]
        return tuple(map(add, self.lower_bytes, self.per_unit(more)))


def device_runs(devices: Sequence[Device]) -> list[tuple[Device, int, int]]:
    """Runs of one device in a sequence, as device, start and end.

    There are few of them, so that what is told by device is cheap.
    """
    found: list[tuple[Device, int, int]] = []
    current, start = None, 0
    for at, device in enumerate(devices):
        if device is not current:
            if current is not None:
                found.append((current, start, at))
            current, start = device, at
    if current is not None:
        found.append((current, start, len(devices)))
    return found


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

    execution_devices: tuple[Device, ...]
    slots: Mapping[Device, Slots]
    needs: Mapping[Device, int]
    """Slots, buffers that stay, what the workload keeps for streamed atoms. Bytes."""
    in_place: frozenset[int]
    """Atoms that the CPU computes where they lie."""
    cost: int = 0
    """What the pass pays for everything that is not resident, in weighed bytes (`slots`)."""


@dataclass(frozen=True)
class Solution:
    """Homes and executing devices for every atom, within every budget."""

    homes: tuple[Device, ...]
    streaming: Streaming
    gaps: tuple[int, ...] = ()
    """Units that went back to an earlier device because nothing else had room."""
    is_packed: bool = False
    """Whether blocks lie out of order, because no split of the order into runs fits."""


@dataclass(frozen=True)
class Overflow:
    """Why there is no solution."""

    units: tuple[int, ...]
    """Units that found no place, in order."""
    free_bytes: Mapping[Device, int] = field(default_factory=dict)
    """What each device had left when the first of them was to be placed."""
    reason: str = ""
    is_proven: bool = True
    """Whether no placement at all fits; otherwise the search for one was given up."""
    steps: int = 0
    """How many placements of single units that search tried."""
