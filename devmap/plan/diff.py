"""What changes between two plans or locks.

Homes, executing devices, bytes per device, and what only one of two models has.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from devmap.inventory.dtypes import run_dtype, storage_bytes
from devmap.plan.fold import fold_device_map, runs_of
from devmap.plan.lock import lock_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.inventory.model import Inventory
    from devmap.plan.lock import Lock, LockedDevice
    from devmap.plan.model import Plan

__all__ = ["DeviceChange", "Move", "PlanDiff", "diff_locks", "diff_plans"]


@dataclass(frozen=True, slots=True)
class Move:
    """Neighbours in the model's order, from `path` to `last`.

    Whose home or executing device changes in the same way.
    """

    path: str
    before: int | str | None
    """The home; None where that side does not have it."""
    after: int | str | None
    executed_before: int | str | None = None
    executes_after: int | str | None = None
    last: str = ""
    """Equal to `path` for a single module or tensor."""
    nbytes: int | None = None
    """Bytes that change their home, at the later dtype; None where no inventory says how large they are."""

    @property
    def change(self) -> tuple[int | str | None, int | str | None, int | str | None, int | str | None]:
        """What changes, for comparison with a neighbour."""
        return (self.before, self.after, self.executed_before, self.executes_after)


@dataclass(frozen=True, slots=True)
class DeviceChange:
    """Bytes on one device before and after.

    None on a side that does not offer it, and for a capacity without a limit.
    """

    device: int | str
    before_bytes: int | None
    """Weights."""
    after_bytes: int | None
    reserved_before: int | None = None
    """Headroom, workload, slots."""
    reserved_after: int | None = None
    capacity_before: int | None = None
    capacity_after: int | None = None


@dataclass(frozen=True)
class PlanDiff:
    """What moves, in the model's order with numbered modules by number.

    And the bytes on every device that either side offers.
    """

    moves: tuple[Move, ...]
    devices: tuple[DeviceChange, ...]
    same_model: bool
    same_config: bool
    only_before: tuple[str, ...] = field(default=())
    """Modules and tensors that only the earlier model has, folded; known where at least one side comes with
    its inventory."""
    only_after: tuple[str, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether everything lives and runs where it did."""
        return not self.moves


def diff_plans(before: Plan, after: Plan) -> PlanDiff:
    """Return what moves from one plan to another."""
    return diff_locks(lock_of(before), lock_of(after))


def diff_locks(
    before: Lock, after: Lock, *, models: tuple[Inventory | None, Inventory | None] = (None, None)
) -> PlanDiff:
    """Return what moves from one lock to another.

    `models` are the inventories of the two, as far as they are known.

    Two maps may name a subtree at different depths (`model` before, `model.layers.0` after): the keys of both
    sides are compared, each by its longest match on the other side, and of a moved subtree only the deeper
    keys are told. Linear in keys times depth.
    """
    only_before, only_after = _only(before, models[1]), _only(after, models[0])
    if models[0] is not None and models[1] is not None:
        only_before, only_after = _missing(models[0], models[1]), _missing(models[1], models[0])
    absent = {*only_before, *only_after}
    known = models[1] or models[0]
    leaves = [name for name in _leaves(before, after) if not _inside(name, absent)]
    sizes = _sizes(known, after.dtype, leaves) if known is not None else {}
    return PlanDiff(
        moves=tuple(_folded([_move(name, before, after, sizes.get(name)) for name in leaves])),
        devices=_devices(before.devices, after.devices),
        same_model=before.inventory_fingerprint == after.inventory_fingerprint,
        same_config=before.config_fingerprint == after.config_fingerprint,
        only_before=only_before,
        only_after=only_after,
    )


def _leaves(before: Lock, after: Lock) -> Iterator[str]:
    """Yield the deepest names of both sides in the model's order.

    That of the maps, numbered modules by number.
    """
    tree: dict[str, dict[str, None]] = {"": {}}
    for name in (*after.device_map, *before.device_map, *after.executes_on, *before.executes_on):
        path = name
        while path:
            parent = path.rpartition(".")[0]
            siblings = tree.setdefault(parent, {})
            if path in siblings:
                break
            siblings[path] = None
            path = parent
    pending = [""]
    while pending:
        path = pending.pop()
        below = list(tree.get(path, ()))
        if not below:
            yield path
        if all(child.rpartition(".")[2].isdecimal() for child in below):
            below.sort(key=lambda child: int(child.rpartition(".")[2]))
        pending += reversed(below)


def _move(name: str, before: Lock, after: Lock, nbytes: int | None) -> Move:
    return Move(
        name, before.home(name), after.home(name), before.executing(name), after.executing(name), name, nbytes
    )


def _folded(moves: Sequence[Move]) -> Iterator[Move]:
    """Neighbours with one change as one move, without those that stay."""
    start = 0
    while start < len(moves):
        end = start + 1
        while end < len(moves) and moves[end].change == moves[start].change:
            end += 1
        first, last = moves[start], moves[end - 1]
        if first.before != first.after or first.executed_before != first.executes_after:
            amounts = [move.nbytes for move in moves[start:end] if move.nbytes is not None]
            nbytes = sum(amounts) if len(amounts) == end - start else None
            yield replace(first, last=last.path, nbytes=nbytes)
        start = end


def _sizes(inventory: Inventory, dtype: str | None, names: Sequence[str]) -> dict[str, int]:
    """Return the bytes of each of the names that the inventory has, a tied tensor under its first name.

    Linear in tensors times depth.
    """
    found = {name: 0 for name in names if not name or name in inventory.modules or name in inventory.tensors}
    owner = inventory.owner
    for tensor in inventory.tensors.values():
        path = tensor.name
        while path and path not in found:
            path = path.rpartition(".")[0]
        if path in found and owner.get(tensor.name, tensor.name) == tensor.name:
            found[path] += storage_bytes(tensor.shape, run_dtype(tensor.dtype, dtype, kind=tensor.kind))
    return found


def _missing(model: Inventory, other: Inventory) -> tuple[str, ...]:
    """Return what only the first model has.

    The highest modules of which the other has nothing, and single tensors.
    """
    runs = runs_of(name in other.tensors for name in model.tensors)
    return tuple(path for path, is_shared in fold_device_map(runs, model).items() if not is_shared)


def _only(lock: Lock, other: Inventory | None) -> tuple[str, ...]:
    """Return the keys of a lock that name nothing in the other side's model."""
    if other is None:
        return ()
    return tuple(
        key for key in lock.device_map if key and key not in other.modules and key not in other.tensors
    )


def _inside(name: str, paths: set[str]) -> bool:
    while name:
        if name in paths:
            return True
        name = name.rpartition(".")[0]
    return "" in paths


def _devices(before: tuple[LockedDevice, ...], after: tuple[LockedDevice, ...]) -> tuple[DeviceChange, ...]:
    old: Mapping[object, LockedDevice] = {use.device: use for use in before}
    new: Mapping[object, LockedDevice] = {use.device: use for use in after}
    return tuple(
        DeviceChange(
            device.plain,
            *_pair("weight_bytes", old.get(device), new.get(device)),
            *_pair("reserved_bytes", old.get(device), new.get(device)),
            *_pair("capacity_bytes", old.get(device), new.get(device)),
        )
        for device in sorted({use.device for use in (*before, *after)})
    )


def _pair(
    figure: str, before: LockedDevice | None, after: LockedDevice | None
) -> tuple[int | None, int | None]:
    return getattr(before, figure, None), getattr(after, figure, None)
