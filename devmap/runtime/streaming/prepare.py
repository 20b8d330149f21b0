"""Setting up the streaming of a model: blocks, their homes, slots and the ring, within the plan's budgets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.config.atomic_files import sweep
from devmap.config.values.device import DISK
from devmap.devices.host_memory import host_memory
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.storage.homes import DiskHome, disk_home, host_home, is_mappable
from devmap.runtime.storage.offload_folder import write_block
from devmap.runtime.storage.page_cache import can_populate
from devmap.runtime.storage.read_requests import REQUEST_BYTES
from devmap.runtime.storage.threads import started_pool
from devmap.runtime.storage.weights import lay_out
from devmap.runtime.streaming.arrange import divided
from devmap.runtime.streaming.host_budget import RING, charged_for_slots, kept_in_cache, slot_count
from devmap.runtime.streaming.lanes import Lane
from devmap.runtime.streaming.mapped_lanes import MappedLane
from devmap.runtime.streaming.ring import make_ring
from devmap.runtime.streaming.slot import Slot, new_slot
from devmap.runtime.streaming.streamed_block import StreamedBlock, TensorBinding
from devmap.runtime.streaming.streamed_weight import StreamedWeight
from devmap.runtime.streaming.transfers import Uploader
from devmap.runtime.streaming.unblocked_weights import DirectWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.plan.model import Plan
    from devmap.runtime.storage.homes import HostHome
    from devmap.runtime.storage.module_scan import TensorLocation
    from devmap.runtime.storage.weights import Weight
    from devmap.runtime.streaming.arrange import StreamedPlacement
    from devmap.runtime.streaming.engine import Engine

__all__ = ["is_prepared", "make_blocks", "prepare"]


def is_prepared(streamed: StreamedPlacement) -> bool:
    """Return whether loading has to move its bytes: not where it stays in the user's own files."""
    return streamed.placement.home != DISK or any(
        part.has_value for weight in streamed.weights for part in weight.plain
    )


def make_blocks(
    placements: Sequence[StreamedPlacement], plan: Plan, engine: Engine, report: Callable[[int], None]
) -> dict[str, StreamedBlock]:
    """Return the streamed blocks with their homes, by path.

    `report(nbytes)` is told of what was brought home.

    Raises:
        LoadError: when the offload folder cannot be written to.
        OutOfMemoryError: when a device has no room for a tied weight that is kept there.
        StreamError: when a weight cannot be read.
    """
    making = _Making(plan, engine)
    if plan.offload_folder is not None and any(
        is_prepared(streamed) and streamed.placement.home == DISK for streamed in placements
    ):
        sweep(Path(plan.offload_folder))
    kept = _kept_weights(placements, plan)
    blocks: dict[str, StreamedBlock] = {}
    for streamed in placements:
        for part in divided(streamed, _host_budget(placements, plan)):
            blocks[part.placement.path] = making.block(part, kept)
        if is_prepared(streamed):
            report(streamed.nbytes)
    direct = [block.layout.nbytes for block in blocks.values() if block.index < 0]
    engine.direct = DirectWeights(max(direct)) if direct else None
    return blocks


class _Making:
    """What the blocks of one model share while they are made."""

    def __init__(self, plan: Plan, engine: Engine) -> None:
        self._plan = plan
        self._engine = engine
        self._placeholders: dict[tuple[str, Device], StreamedWeight] = {}
        """Shared by the blocks that a tied weight is in."""
        self._written: dict[str, Weight] = {}
        self._in_host_memory: dict[str, torch.Tensor] = {}
        self._counts: dict[Device, int] = {}

    def block(self, streamed: StreamedPlacement, kept: Mapping[Device, frozenset[str]]) -> StreamedBlock:
        device = streamed.placement.executes_on
        stays = kept.get(device, frozenset())
        home = self._home(streamed, [weight for weight in streamed.weights if weight.name not in stays])
        for weight in streamed.weights:
            if weight.name in stays:
                self._keep(streamed, weight, device)
            elif (weight.name, device) not in self._placeholders:
                self._placeholders[weight.name, device] = self._placeholder(
                    home, weight, device, is_direct=not streamed.is_module
                )
        here = self._engine.kept.get(device, {})
        packings = {weight.name: weight.packing for weight in streamed.weights if weight.packing is not None}
        for packing in packings.values():
            packing.stream(on=True)
        bindings = tuple(
            TensorBinding(
                location,
                here[location.owner]
                if location.owner in stays
                else self._placeholders[location.owner, device],
                _wants_gradient(location),
                packings.get(location.owner),
            )
            for location in streamed.locations
        )
        streams = streamed.is_module and home.layout.nbytes > 0
        index = self._counts.get(device, 0) if streams else -1
        self._counts[device] = self._counts.get(device, 0) + streams
        return StreamedBlock(
            index, streamed.placement.path, device, home, bindings, tier=streamed.placement.home.plain
        )

    def _home(self, streamed: StreamedPlacement, weights: Sequence[Weight]) -> DiskHome | HostHome:
        readers = self._engine.readers
        if streamed.placement.home != DISK:
            return host_home(lay_out(weights), readers, self._in_host_memory)
        plain = [part for weight in weights for part in weight.plain]
        live = [weight for weight in plain if weight.has_value and weight.name not in self._written]
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

    def _keep(self, streamed: StreamedPlacement, weight: Weight, device: Device) -> None:
        """Bring a tied weight to its device, where it stays."""
        here = self._engine.kept.setdefault(device, {})
        if weight.name in here:
            return
        backend = backend_for(device)
        home = self._home(streamed, [weight])
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


def _wants_gradient(location: TensorLocation) -> bool:
    tensor = location.table[location.key]
    return tensor is not None and tensor.requires_grad


def _kept_weights(placements: Sequence[StreamedPlacement], plan: Plan) -> dict[Device, frozenset[str]]:
    """Weights that several streamed blocks of an accelerator share.

    Where keeping them there takes no more than is charged for slots.

    Otherwise each slot would have room for them, and each pass would read them once for each block.
    """
    found: dict[Device, frozenset[str]] = {}
    for device in {
        streamed.placement.executes_on
        for streamed in placements
        if streamed.placement.executes_on.is_accelerator
    }:
        here = [
            streamed
            for streamed in placements
            if streamed.placement.executes_on == device and streamed.is_module
        ]
        times: dict[str, int] = {}
        for weight in (weight for streamed in here for weight in streamed.weights if weight.packing is None):
            times[weight.name] = times.get(weight.name, 0) + 1
        tied = {
            weight.name: weight.nbytes
            for streamed in here
            for weight in streamed.weights
            if times.get(weight.name, 0) > 1
        }
        if not tied:
            continue
        kept = sum(tied.values())
        largest = max(streamed.nbytes for streamed in here)
        rest = max(
            sum(weight.nbytes for weight in streamed.weights if weight.name not in tied) for streamed in here
        )
        charged = charged_for_slots(plan, device) or 2 * largest
        if kept + rest * slot_count(charged, largest) <= charged:
            found[device] = frozenset(tied)
    return found


def _host_budget(placements: Iterable[StreamedPlacement], plan: Plan) -> int:
    """Return the bytes of host memory for each of the two that use it.

    The ring, and blocks that execute on the CPU.
    """
    kinds = {streamed.placement.executes_on.is_accelerator for streamed in placements if streamed.is_module}
    return plan.host_memory_bytes // max(1, len(kinds))


def prepare(engine: Engine, blocks: Mapping[str, StreamedBlock], plan: Plan) -> None:
    """Make slots and ring, within the plan's budgets."""
    _watch(engine, blocks.values())
    _spare_the_cache(blocks.values(), plan)
    by_device: dict[Device, list[StreamedBlock]] = {}
    for block in blocks.values():
        if block.index >= 0:
            by_device.setdefault(block.device, []).append(block)
    budget = plan.host_memory_bytes // max(1, len({device.is_accelerator for device in by_device}))
    to_accelerators = [block for block in blocks.values() if block.index >= 0 and block.device.is_accelerator]
    engine.ring = make_ring(to_accelerators, budget, engine.readers)
    lanes = max(1, len({block.device for block in to_accelerators}))
    made: dict[Device, Lane | MappedLane] = {}
    engine.lanes = made  # each is closed with the engine as soon as it is made, should the next one fail
    for device, here in by_device.items():
        made[device] = _lane(device, here, engine, plan, budget, lanes)


def _watch(engine: Engine, blocks: Iterable[StreamedBlock]) -> None:
    """Compare the files that are read while the model runs.

    And those that weights stay mapped from, with what they are now.
    """
    paths: dict[Path, None] = dict.fromkeys(engine.readers.files.mapped_paths)
    for block in blocks:
        paths.update(
            dict.fromkeys(stored.file for field in block.layout.fields for stored, _ in field.weight.stored)
        )
    for path in paths:
        engine.readers.files.watch(path)


def _spare_the_cache(blocks: Iterable[StreamedBlock], plan: Plan) -> None:
    """Choose which blocks on disk the page cache is left to keep."""
    on_disk = [(block, block.home) for block in blocks if isinstance(block.home, DiskHome)]
    room = host_memory().free_bytes - plan.host_memory_bytes
    keeps = kept_in_cache([home.recipe.nbytes for _, home in on_disk], room)
    for (block, home), kept in zip(on_disk, keeps, strict=True):
        if not kept:
            block.home = replace(home, forgets=True)


def _lane(
    device: Device, blocks: Sequence[StreamedBlock], engine: Engine, plan: Plan, budget: int, lanes: int
) -> Lane | MappedLane:
    largest = max(block.layout.nbytes for block in blocks)
    most = max(1, budget // max(1, largest))
    backend = backend_for(device)
    if device.is_accelerator:
        slots = _slots(device, blocks, engine, plan)  # first: a thread would outlive a refusal of memory
        thread = started_pool(1, f"devmap-{device}")
        slabs = len(engine.ring.slabs) if engine.ring is not None else 1
        uploader = Uploader(
            backend, engine.ring, engine.counters, thread, in_flight=min(2, (slabs - 1) // lanes)
        )
        return Lane(backend, blocks, slots, engine.counters, uploader=uploader)
    fields = [field for block in blocks for field in block.layout.fields]
    if can_populate() and all(is_mappable(field.weight) for field in fields):
        return MappedLane(blocks, engine.readers, engine.counters, most=min(len(blocks), most))
    slots = _as_many(device, largest, min(RING, most, len(blocks)), at_least=1)
    return Lane(backend, blocks, slots, engine.counters, uploader=None)


def _slots(device: Device, blocks: Sequence[StreamedBlock], engine: Engine, plan: Plan) -> list[Slot]:
    """Allocate as many slots as the plan charges for."""
    largest = max(block.layout.nbytes for block in blocks)
    charged = charged_for_slots(plan, device)
    kept = sum(tensor.nbytes for tensor in engine.kept.get(device, {}).values())
    count = min(slot_count(charged, largest, kept), len(blocks))
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
