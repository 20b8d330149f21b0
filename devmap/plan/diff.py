"""What changes between two plans or locks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.plan.lock import lock_of

if TYPE_CHECKING:
    from devmap.plan.lock import Lock, LockedDevice
    from devmap.plan.model import Plan

__all__ = ["DeviceChange", "Move", "PlanDiff", "diff_locks", "diff_plans"]


@dataclass(frozen=True, slots=True)
class Move:
    """A module or tensor whose home or executing device changes; None on a side that does not know it."""

    path: str
    before: int | str | None
    after: int | str | None
    executed_before: int | str | None = None
    executes_after: int | str | None = None


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """Bytes of weights on one device before and after; None on a side that does not offer it."""

    device: int | str
    before_bytes: int | None
    after_bytes: int | None


@dataclass(frozen=True)
class PlanDiff:
    """What moves, in the order of the later plan, and the bytes on every device that either side offers."""

    moves: tuple[Move, ...]
    devices: tuple[DeviceChange, ...]
    same_model: bool
    same_config: bool

    @property
    def is_empty(self) -> bool:
        """Whether everything lives and runs where it did."""
        return not self.moves


def diff_plans(before: Plan, after: Plan) -> PlanDiff:
    """What moves from one plan to another."""
    return diff_locks(lock_of(before), lock_of(after))


def diff_locks(before: Lock, after: Lock) -> PlanDiff:
    """What moves from one lock to another.

    Two maps may name a subtree at different depths (`model` before, `model.layers.0` after): the keys of both sides are
    compared, each by its longest match on the other side, and of a moved subtree only the deeper keys are told. Linear in keys times depth.
    """
    names = list(dict.fromkeys((*after.device_map, *before.device_map, *after.executes_on, *before.executes_on)))
    split = {parent for name in names for parent in _above(name)}
    moves = [_move(name, before, after) for name in names if name not in split]
    return PlanDiff(
        moves=tuple(move for move in moves if move.before != move.after or move.executed_before != move.executes_after),
        devices=_devices(before.devices, after.devices),
        same_model=before.inventory_fingerprint == after.inventory_fingerprint,
        same_config=before.config_fingerprint == after.config_fingerprint,
    )


def _above(name: str) -> list[str]:
    found = []
    while name:
        name = name.rpartition(".")[0]
        found.append(name)
    return found


def _move(name: str, before: Lock, after: Lock) -> Move:
    return Move(name, before.home(name), after.home(name), before.executing(name), after.executing(name))


def _devices(before: tuple[LockedDevice, ...], after: tuple[LockedDevice, ...]) -> tuple[DeviceChange, ...]:
    bytes_before = {use.device: use.weight_bytes for use in before}
    bytes_after = {use.device: use.weight_bytes for use in after}
    return tuple(
        DeviceChange(device.plain, bytes_before.get(device), bytes_after.get(device)) for device in sorted({*bytes_before, *bytes_after})
    )
