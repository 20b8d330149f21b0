"""Setting up the streaming of a model: units, their homes, slots and the ring, within the plan's budgets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.config.values.device import DISK
from devmap.devices.host_memory import host_memory
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.storage.homes import DiskHome, disk_home, host_home, is_mappable
from devmap.runtime.storage.offload_folder import sweep, write_block
from devmap.runtime.storage.page_cache import can_populate
from devmap.runtime.storage.read_requests import REQUEST_BYTES
from devmap.runtime.storage.weights import lay_out
from devmap.runtime.streaming.arrange import divided
from devmap.runtime.streaming.host_budget import RING, charged_for_slots, kept_in_cache, slot_count
from devmap.runtime.streaming.lanes import Lane
from devmap.runtime.streaming.mapped_lanes import MappedLane
from devmap.runtime.streaming.ring import make_ring
from devmap.runtime.streaming.slot import Slot, new_slot
from devmap.runtime.streaming.streamed_block import Binding, Unit
from devmap.runtime.streaming.streamed_weight import StreamedWeight
from devmap.runtime.streaming.transfers import Feeder
from devmap.runtime.streaming.unblocked_weights import DirectWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from devmap.config.values.device import Device
    from devmap.plan.model import Plan
    from devmap.runtime.storage.homes import HostHome
    from devmap.runtime.storage.module_scan import Spot
    from devmap.runtime.storage.weights import Weight
    from devmap.runtime.streaming.arrange import Block
    from devmap.runtime.streaming.engine import Engine

__all__ = ["is_prepared", "make_units", "prepare"]


def is_prepared(block: Block) -> bool:
    """Whether loading has to move its bytes: not where it stays in the user's own files."""
    return block.placement.home != DISK or any(
        part.live is not None for weight in block.weights for part in weight.plain
    )


def make_units(
    blocks: Sequence[Block], plan: Plan, engine: Engine, report: Callable[[int], None]
) -> dict[str, Unit]:
    """The streamed blocks with their homes, by path; `report(nbytes)` is told of what was brought home.

    Raises:
        LoadError: when the offload folder cannot be written to.
        OutOfMemoryError: when a device has no room for a tied weight that is kept there.
        StreamError: when a weight cannot be read.
    """
    making = _Making(plan, engine)
    if plan.offload_folder is not None and any(
        is_prepared(block) and block.placement.home == DISK for block in blocks
    ):
        sweep(plan.offload_folder)
    kept = _kept_weights(blocks, plan)
    units: dict[str, Unit] = {}
    for block in blocks:
        for part in divided(block, _host_budget(blocks, plan)):
            units[part.placement.path] = making.unit(part, kept)
        if is_prepared(block):
            report(block.nbytes)
    direct = [unit.layout.nbytes for unit in units.values() if unit.index < 0]
    engine.direct = DirectWeights(max(direct)) if direct else None
    return units


class _Making:
    """What the units of one model share while they are made."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan = plan
        self._engine = engine
        self._placeholders: dict[tuple[str, Device], StreamedWeight] = {}
        """Shared by the blocks that a tied weight is in."""
        self._written: dict[str, Weight] = {}
        self._in_host_memory: dict[str, torch.Tensor] = {}
        self._counts: dict[Device, int] = {}

    def unit(self, block: Block, kept: Mapping[Device, frozenset[str]]) -> Unit:
        device = block.placement.executes_on
        stays = kept.get(device, frozenset())
        home = self._home(block, [weight for weight in block.weights if weight.name not in stays])
        for weight in block.weights:
            if weight.name in stays:
                self._keep(block, weight, device)
            elif (weight.name, device) not in self._placeholders:
                self._placeholders[weight.name, device] = self._placeholder(
                    home, weight, device, is_direct=not block.is_module
                )
        here = self._engine.kept.get(device, {})
        packings = {weight.name: weight.packing for weight in block.weights if weight.packing is not None}
        for packing in packings.values():
            packing.stream(on=True)
        bindings = tuple(
            Binding(
                spot,
                here[spot.owner] if spot.owner in stays else self._placeholders[spot.owner, device],
                _wants_gradient(spot),
                packings.get(spot.owner),
            )
            for spot in block.spots
        )
        streams = block.is_module and home.layout.nbytes > 0
        index = self._counts.get(device, 0) if streams else -1
        self._counts[device] = self._counts.get(device, 0) + streams
        return Unit(index, block.placement.path, device, home, bindings, tier=block.placement.home.plain)

    def _home(self, block: Block, weights: Sequence[Weight]) -> DiskHome | HostHome:
        readers = self._engine.readers
        if block.placement.home != DISK:
            return host_home(lay_out(weights), readers, self._in_host_memory)
        plain = [part for weight in weights for part in weight.plain]
        live = [weight for weight in plain if weight.live is not None and weight.name not in self._written]
        if live:
            assert self._plan.offload_folder is not None
            self._written.update(
                {weight.name: weight for weight in write_block(live, self._plan.offload_folder)}
            )
        return disk_home(
            lay_out(self._as_written(weight) for weight in weights),
            readers,
            request_bytes=REQUEST_BYTES,
        )

    def _as_written(self, weight: Weight) -> Weight:
        if weight.parts:
            return replace(weight, parts=tuple(map(self._as_written, weight.parts)))
        return self._written.get(weight.name, weight)

    def _keep(self, block: Block, weight: Weight, device: Device) -> None:
        """Bring a tied weight to its device, where it stays."""
        here = self._engine.kept.setdefault(device, {})
        if weight.name in here:
            return
        backend = backend_for(device)
        home = self._home(block, [weight])
        flat = backend.allocate(weight.nbytes)
        backend.copy(flat, home.tensor(weight.name).view(-1).view(torch.uint8))
        tensor = flat.view(weight.dtype).view(weight.shape)
        here[weight.name] = (
            nn.Parameter(tensor, requires_grad=False) if weight.kind == "parameter" else tensor
        )

    def _placeholder(
        self, home: DiskHome | HostHome, weight: Weight, device: Device, *, is_direct: bool
    ) -> StreamedWeight:
        engine, torch_device = self._engine, backend_for(device).torch_device
        fetch = engine.fetch_direct if is_direct else engine.fetch
        return StreamedWeight(
            weight.name,
            lambda: fetch(home, weight.name, torch_device),
            like=torch.empty(weight.shape, dtype=weight.dtype, device="meta"),
            device=torch_device,
            is_parameter=weight.kind == "parameter",
            whole=(lambda: engine.value(home, weight.name)) if weight.packing is not None else None,
        )


def _wants_gradient(spot: Spot) -> bool:
    tensor = spot.table[spot.key]
    return tensor is not None and tensor.requires_grad


def _kept_weights(blocks: Sequence[Block], plan: Plan) -> dict[Device, frozenset[str]]:
    """Weights that several streamed blocks of an accelerator share, where keeping them there takes no more than is charged for slots.

    Otherwise each slot would have room for them, and each pass would read them once for each block.
    """
    found: dict[Device, frozenset[str]] = {}
    for device in {
        block.placement.executes_on for block in blocks if block.placement.executes_on.is_accelerator
    }:
        here = [block for block in blocks if block.placement.executes_on == device and block.is_module]
        times: dict[str, int] = {}
        for weight in (weight for block in here for weight in block.weights if weight.packing is None):
            times[weight.name] = times.get(weight.name, 0) + 1
        tied = {
            weight.name: weight.nbytes
            for block in here
            for weight in block.weights
            if times.get(weight.name, 0) > 1
        }
        if not tied:
            continue
        kept = sum(tied.values())
        largest = max(block.nbytes for block in here)
        rest = max(
            sum(weight.nbytes for weight in block.weights if weight.name not in tied) for block in here
        )
        charged = charged_for_slots(plan, device) or 2 * largest
        if kept + rest * slot_count(charged, largest) <= charged:
            found[device] = frozenset(tied)
    return found


def _host_budget(blocks: Iterable[Block], plan: Plan) -> int:
    """Bytes of host memory for each of the two that use it: the ring, and blocks that execute on the CPU."""
    kinds = {block.placement.executes_on.is_accelerator for block in blocks if block.is_module}
    return plan.host_memory_bytes // max(1, len(kinds))


def prepare(engine: Engine, units: Mapping[str, Unit], plan: Plan) -> None:
    """Make slots and ring, within the plan's budgets."""
    _watch(engine, units.values())
    _spare_the_cache(units.values(), plan)
    by_device: dict[Device, list[Unit]] = {}
    for unit in units.values():
        if unit.index >= 0:
            by_device.setdefault(unit.device, []).append(unit)
    budget = plan.host_memory_bytes // max(1, len({device.is_accelerator for device in by_device}))
    to_accelerators = [unit for unit in units.values() if unit.index >= 0 and unit.device.is_accelerator]
    engine.ring = make_ring(to_accelerators, budget, engine.readers)
    lanes = max(1, len({unit.device for unit in to_accelerators}))
    engine.lanes = {
        device: _lane(device, here, engine, plan, budget, lanes) for device, here in by_device.items()
    }


def _watch(engine: Engine, units: Iterable[Unit]) -> None:
    """Compare the files that are read while the model runs.

    And those that weights stay mapped from, with what they are now.
    """
    paths: dict[Path, None] = dict.fromkeys(engine.readers.files.mapped_paths)
    for unit in units:
        paths.update(
            dict.fromkeys(stored.file for field in unit.layout.fields for stored, _ in field.weight.stored)
        )
    for path in paths:
        engine.readers.files.watch(path)


def _spare_the_cache(units: Iterable[Unit], plan: Plan) -> None:
    """Choose which blocks on disk the page cache is left to keep."""
    on_disk = [(unit, unit.home) for unit in units if isinstance(unit.home, DiskHome)]
    room = host_memory().free_bytes - plan.host_memory_bytes
    keeps = kept_in_cache([home.recipe.nbytes for _, home in on_disk], room)
    for (unit, home), kept in zip(on_disk, keeps, strict=True):
        if not kept:
            unit.home = replace(home, forgets=True)


def _lane(
    device: Device, units: Sequence[Unit], engine: Engine, plan: Plan, budget: int, lanes: int
) -> Lane | MappedLane:
    largest = max(unit.layout.nbytes for unit in units)
    most = max(1, budget // max(1, largest))
    backend = backend_for(device)
    if device.is_accelerator:
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"devmap-{device}")
        slabs = len(engine.ring.slabs) if engine.ring is not None else 1
        feeder = Feeder(backend, engine.ring, engine.counters, thread, in_flight=min(2, (slabs - 1) // lanes))
        return Lane(backend, units, _slots(device, units, engine, plan), engine.counters, feeder=feeder)
    fields = [field for unit in units for field in unit.layout.fields]
    if can_populate() and all(is_mappable(field.weight) for field in fields):
        return MappedLane(units, engine.readers, engine.counters, most=min(len(units), most))
    slots = _as_many(device, largest, min(RING, most, len(units)), at_least=1)
    return Lane(backend, units, slots, engine.counters, feeder=None)


def _slots(device: Device, units: Sequence[Unit], engine: Engine, plan: Plan) -> list[Slot]:
    """As many slots as the plan charges for."""
    largest = max(unit.layout.nbytes for unit in units)
    charged = charged_for_slots(plan, device)
    kept = sum(tensor.nbytes for tensor in engine.kept.get(device, {}).values())
    count = min(slot_count(charged, largest, kept), len(units))
    return _as_many(device, largest, count, at_least=count if charged else 1)


def _as_many(device: Device, nbytes: int, wanted: int, *, at_least: int) -> list[Slot]:
    backend = backend_for(device)
    slots: list[Slot] = []
    try:
        while len(slots) < wanted:
            slots.append(new_slot(backend, nbytes))
    except OutOfMemoryError:
        if len(slots) < at_least:
            raise
    return slots
