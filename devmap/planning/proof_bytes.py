"""The bytes of a plan added up again: what every placement owns, what every device holds and keeps free, what streams fit their slots."""

from __future__ import annotations

import math
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK, Device
from devmap.inventory.atoms import atoms
from devmap.inventory.dtypes import element_bits
from devmap.planning.workload import charges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.model import PlacementConfig, Workload
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["run_sizes", "wrong_bytes", "wrong_charges", "wrong_executors"]

_LOOK = attrgetter("shape", "dtype", "kind")
_WIDE = {"float64", "float32", "float16", "bfloat16"}
"""What a run dtype changes; everything else keeps the checkpoint's."""


def wrong_bytes(
    plan: Plan, inventory: Inventory, sizes: Sequence[int], homes: Sequence[int | str | None], placed: Sequence[int]
) -> Iterator[str]:
    """Weights added up again per placement and per device, each tied tensor once per device; every total against its capacity."""
    owned = [0] * len(plan.placements)
    owner = inventory.owner
    if owner:
        sizes = _once_a_device(inventory, sizes, homes)
    for size, number in zip(sizes, placed, strict=True):
        owned[number] += size
    for placement, nbytes in zip(plan.placements, owned, strict=True):
        if placement.nbytes != nbytes:
            yield f"'{placement.path}' is said to own {placement.nbytes:,} bytes and owns {nbytes:,}"
    held = _by_home(plan, owned)
    for use in plan.devices:
        expected = held.get(use.device, 0)
        if use.weight_bytes != expected:
            yield f"{use.device} is said to hold {use.weight_bytes:,} bytes of weights and holds {expected:,}"
        kept = sum(charge.nbytes for charge in use.charges)
        if use.capacity_bytes is not None and expected + kept > use.capacity_bytes:
            yield f"{use.device} is over its budget by {expected + kept - use.capacity_bytes:,} bytes"


def _by_home(plan: Plan, owned: Sequence[int]) -> dict[Device, int]:
    """What each device holds, without the buffers of streamed placements, which stay elsewhere."""
    held: dict[Device, int] = {}
    start = 0
    for device, group in groupby([placement.home for placement in plan.placements]):
        end = start + len(list(group))
        away = sum([placement.resident_buffer_bytes for placement in plan.placements[start:end]])
        held[device] = held.get(device, 0) + sum(owned[start:end]) - away
        start = end
    return held


def _once_a_device(inventory: Inventory, sizes: Sequence[int], homes: Sequence[int | str | None]) -> list[int]:
    """The sizes, with 0 for a tied tensor that its device holds already under another name."""
    owner = inventory.owner
    seen: set[tuple[str, int | str | None]] = set()
    found: list[int] = []
    for name, size, home in zip(inventory.tensors, sizes, homes, strict=True):
        first = owner.get(name)
        known = first is not None and (first, home) in seen
        if first is not None:
            seen.add((first, home))
        found.append(0 if known else size)
    return found


def run_sizes(plan: Plan, inventory: Inventory) -> list[int]:
    """Bytes of every tensor at the run dtype, from its shape; equal looks are worked out once."""
    known: dict[tuple[object, ...], int] = {}
    found: list[int] = []
    for look in map(_LOOK, inventory.tensors.values()):
        size = known.get(look)
        if size is None:
            shape, dtype, kind = look
            running = plan.dtype if plan.dtype is not None and kind == "parameter" and dtype in _WIDE else dtype
            size = known[look] = -(-math.prod(shape) * element_bits(running) // 8)
        found.append(size)
    return found


def wrong_charges(plan: Plan, inventory: Inventory, config: PlacementConfig) -> Iterator[str]:
    """Capacities, buffers that stay and the workload's charges, each attributed again to the devices of the plan.

    What the workload keeps for one module is taken as `workload` says; the formulas are not derived a second time.
    """
    expected: dict[tuple[Device, str], int] = {}
    for placement in plan.placements:
        if placement.resident_buffer_bytes:
            key = (placement.executes_on, "buffers")
            expected[key] = expected.get(key, 0) + placement.resident_buffer_bytes
    if config.workload is not None:
        yield from _moved_while_trained(plan, inventory, config.workload, expected)
    told = {use.device: use for use in plan.devices}
    for (device, what), nbytes in expected.items():
        use = told.get(device)
        charged = sum(charge.nbytes for charge in use.charges if charge.what == what) if use is not None else nbytes
        if charged != nbytes:
            yield f"{device} is charged {charged:,} bytes for {what}, and the plan needs {nbytes:,}"
    for device, amount in (config.max_memory or {}).items():
        if isinstance(amount, int) and device in told and told[device].capacity_bytes != amount:
            yield f"{device} is said to have {told[device].capacity_bytes} bytes, and max_memory gives {amount:,}"


def _moved_while_trained(plan: Plan, inventory: Inventory, asked: Workload, expected: dict[tuple[Device, str], int]) -> Iterator[str]:
    """Trained weights that a plan streams; adds to `expected` what the workload keeps, by device and kind."""
    whole = atoms(inventory, no_split_module_classes=plan.no_split_module_classes, dtype=plan.dtype)
    workload = charges(asked, inventory, whole, dtype=plan.dtype)
    by_path = {placement.path: placement for placement in plan.placements}
    for kind in workload.by_kind:
        for at, nbytes in kind.by_atom.items():
            placement = by_path[whole[at].path]
            key = (placement.home if kind.follows_home else placement.executes_on, kind.what)
            expected[key] = expected.get(key, 0) + nbytes
    if workload.activation_bytes:
        for device in {placement.executes_on for placement in plan.placements}:
            expected[device, "activations"] = expected.get((device, "activations"), 0) + workload.activation_bytes
    for at in sorted(workload.trained):
        placement = by_path[whole[at].path]
        if placement.is_streamed or placement.home == DISK:
            yield f"'{placement.path}' is trained and streamed from {placement.home}"


def wrong_executors(plan: Plan, inventory: Inventory, sizes: Sequence[int], placed: Sequence[int]) -> Iterator[str]:
    """Executing devices, and that every device with streamed atoms keeps a slot for the largest."""
    able = {use.device for use in plan.devices} | {CPU}
    streamed: list[int] = []
    nearest: Device | None = None
    before: tuple[Device, Device] | None = None
    streams = False
    for number, (path, home, executes, _, _) in enumerate(plan.placements):
        if before is not None and home is before[0] and executes is before[1]:
            if streams:
                streamed.append(number)
            continue  # nothing to be said that was not said of the one before it
        before, streams = (home, executes), executes in able and executes not in {home, DISK}
        nearest = home if home.is_accelerator else nearest
        if executes not in able or executes == DISK:
            yield f"'{path}' is executed on {executes}"
        elif streams:
            streamed.append(number)
            if home.is_accelerator:
                yield f"'{path}' lives on {home} and is executed on {executes}"
            elif executes.is_accelerator and nearest not in {None, executes}:
                yield f"'{path}' is streamed to {executes}; the nearest resident module before it is on {nearest}"
    for device, nbytes in sorted(_largest_slots(plan, inventory, sizes, placed, streamed).items()):
        use = plan.use_of(device)
        slots = sum(charge.nbytes for charge in use.charges if charge.what == "slots") if use is not None else nbytes
        if slots < nbytes:
            yield f"{device} keeps {slots:,} bytes of slots for a module of {nbytes:,}"


def _largest_slots(
    plan: Plan, inventory: Inventory, sizes: Sequence[int], placed: Sequence[int], streamed: Sequence[int]
) -> dict[Device, int]:
    """By executing device the most bytes that one streamed module brings: all its weights, once each, without buffers that stay."""
    wanted = set(streamed)
    if not wanted:
        return {}
    owner = inventory.owner
    brought = dict.fromkeys(streamed, 0)
    seen: set[tuple[int, str]] = set()
    for (name, tensor), size, number in zip(inventory.tensors.items(), sizes, placed, strict=True):
        if number not in wanted or (tensor.kind == "buffer" and not plan.offload_buffers):
            continue
        if name in owner:
            if (number, owner[name]) in seen:
                continue
            seen.add((number, owner[name]))
        brought[number] += size
    found: dict[Device, int] = {}
    for device, members in groupby(streamed, key=lambda number: plan.placements[number].executes_on):
        found[device] = max([found.get(device, 0), *(brought[number] for number in members)])
    return found
