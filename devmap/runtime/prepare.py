"""Setting up the streaming of a model: units, their homes, slots and the ring, within the plan's budgets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from devmap.config.device import DISK
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.guard import StreamedWeight
from devmap.runtime.homes import DiskHome, HostHome, disk_home, host_home, is_mappable
from devmap.runtime.offload import write_block
from devmap.runtime.paging import can_populate
from devmap.runtime.requests import REQUEST_BYTES
from devmap.runtime.residents import host_buffer
from devmap.runtime.ring import Ring, Staged
from devmap.runtime.slots import Lane, Slot, new_slot
from devmap.runtime.units import Binding, Unit
from devmap.runtime.weights import lay_out
from devmap.runtime.windows import MappedLane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.config.device import Device
    from devmap.plan.model import Plan
    from devmap.runtime.arrange import Block
    from devmap.runtime.engine import Engine
    from devmap.runtime.readers import Readers
    from devmap.runtime.weights import Weight

__all__ = ["is_prepared", "make_units", "prepare"]

_RING = 4
"""Host slabs. Two reach the bound when the disk is even; four absorb its jitter."""


def is_prepared(block: Block) -> bool:
    """Whether loading has to move its bytes: not where it stays in the user's own files."""
    return block.placement.home != DISK or any(weight.live is not None for weight in block.weights)


def make_units(blocks: Sequence[Block], plan: Plan, engine: Engine, report: Callable[[int], None]) -> dict[str, Unit]:
    """The streamed blocks with their homes, by path; `report(nbytes)` is told of what was brought home.

    Raises:
        LoadError: when the offload folder cannot be written to.
        StreamError: when a weight cannot be read.
    """
    units: dict[str, Unit] = {}
    placeholders: dict[tuple[str, Device], StreamedWeight] = {}
    """Shared by the blocks that a tied weight is in."""
    counts: dict[Device, int] = {}
    for block in blocks:
        home = _home(block, plan, engine.readers)
        if is_prepared(block):
            report(block.nbytes)
        device = block.placement.executes_on
        torch_device = backend_for(device).torch_device
        for weight in block.weights:
            if (weight.name, device) not in placeholders:
                placeholders[weight.name, device] = _placeholder(engine, home, weight, torch_device)
        bindings = tuple(Binding(spot, placeholders[spot.owner, device], _wants_gradient(spot.table[spot.key])) for spot in block.spots)
        path = block.placement.path
        index = counts.get(device, 0) if block.is_module else -1
        counts[device] = counts.get(device, 0) + block.is_module
        units[path] = Unit(index, path, device, home, bindings, tier=block.placement.home.plain)
    return units


def _wants_gradient(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad


def _placeholder(engine: Engine, home: DiskHome | HostHome, weight: Weight, device: torch.device) -> StreamedWeight:
    like = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
    return StreamedWeight(
        weight.name,
        lambda: engine.fetch(home, weight.name, device),
        like=like,
        device=device,
        is_parameter=weight.kind == "parameter",
    )


def _home(block: Block, plan: Plan, readers: Readers) -> DiskHome | HostHome:
    weights = block.weights
    if block.placement.home != DISK:
        return host_home(lay_out(weights), readers)
    live = [weight for weight in weights if weight.live is not None]
    if live:
        assert plan.offload_folder is not None
        written = {weight.name: weight for weight in write_block(live, plan.offload_folder)}
        weights = tuple(written.get(weight.name, weight) for weight in weights)
    return disk_home(lay_out(weights), readers, request_bytes=REQUEST_BYTES)


def prepare(engine: Engine, units: Mapping[str, Unit], plan: Plan) -> None:
    """Make slots and ring, within the plan's budgets."""
    by_device: dict[Device, list[Unit]] = {}
    for unit in units.values():
        if unit.index >= 0:
            by_device.setdefault(unit.device, []).append(unit)
    through_ring = [unit for device in by_device if device.is_accelerator for unit in by_device[device] if isinstance(unit.home, DiskHome)]
    engine.ring = _ring(through_ring, plan)
    engine.lanes = {device: _lane(device, here, engine, plan) for device, here in by_device.items()}


def _lane(device: Device, units: Sequence[Unit], engine: Engine, plan: Plan) -> Lane | MappedLane:
    fields = [field for unit in units for field in unit.layout.fields]
    if not device.is_accelerator and can_populate() and all(is_mappable(field.weight) for field in fields):
        return MappedLane(units, engine.readers, engine.counters, most=min(len(units), _in_host_memory(units, plan)))
    backend, slots = backend_for(device), _slots(device, units, plan)
    if not device.is_accelerator:
        return Lane(backend, units, slots, None, engine.counters, feeder=None)
    feeder = ThreadPoolExecutor(1, thread_name_prefix=f"devmap-{device}")
    return Lane(backend, units, slots, engine.ring, engine.counters, feeder=feeder)


def _in_host_memory(units: Sequence[Unit], plan: Plan) -> int:
    """How many of the largest block host memory has room for: one at least, as `devmap.runtime.agreement` made sure."""
    return max(1, plan.host_memory_bytes // max(1, *(unit.layout.nbytes for unit in units)))


def _ring(units: Sequence[Unit], plan: Plan) -> Ring | None:
    if not units:
        return None
    largest = max(unit.layout.nbytes for unit in units)
    count = min(_RING, len(units), _in_host_memory(units, plan))
    backend = backend_for(units[0].device)
    return Ring([Staged(host_buffer(backend, largest)) for _ in range(count)])


def _slots(device: Device, units: Sequence[Unit], plan: Plan) -> list[Slot]:
    """As many slots as the plan charges for; on the CPU, where slots are the ring too, as many as host memory allows."""
    backend = backend_for(device)
    largest = max(unit.layout.nbytes for unit in units)
    use = plan.use_of(device)
    charged = sum(charge.nbytes for charge in use.charges if charge.what == "slots") if use is not None else 0
    count = min(2, max(1, charged // max(1, largest))) if charged else 2
    wanted = count if device.is_accelerator else min(_RING, _in_host_memory(units, plan))
    slots = [new_slot(backend, largest)]
    try:
        while len(slots) < min(wanted, len(units)):
            slots.append(new_slot(backend, largest))
    except OutOfMemoryError:
        if len(slots) < min(wanted, count) and charged:
            raise
    return slots
