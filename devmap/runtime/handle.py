"""`model.devmap`: what a dispatched model knows of its placement, and the way back."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.config.values.device import device_name, parse_device
from devmap.config.values.size import format_bytes
from devmap.runtime.streaming.counters import Stats, binding
from devmap.runtime.streaming.streamed_weight import StreamedWeight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.plan.model import Plan
    from devmap.runtime.hooks import Hooks
    from devmap.runtime.storage.module_scan import TensorLocation
    from devmap.runtime.storage.packing import PackedParameter
    from devmap.runtime.streaming.engine import Engine
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["Handle"]


@dataclass(eq=False, repr=False)
class Handle:
    """The placement of one model."""

    plan: Plan
    model: nn.Module
    locations: tuple[TensorLocation, ...]
    resident_bytes: Mapping[int | str, int]
    blocks: tuple[StreamedBlock, ...] = ()
    engine: Engine | None = None
    hooks: Hooks | None = None
    packings: Mapping[str, PackedParameter] = field(default_factory=dict)
    """How the parts of quantised parameters make them, by the parameters' names."""

    def __repr__(self) -> str:
        """Return what lives where, and how much of it is streamed."""
        homes = {device: format_bytes(nbytes) for device, nbytes in self.resident_bytes.items()}
        held = (
            ", ".join(f"{nbytes} on {device_name(parse_device(device))}" for device, nbytes in homes.items())
            or "nothing resident"
        )
        streamed = sum(block.layout.nbytes for block in self.blocks)
        return (
            f"<devmap: {held}; {len(self.blocks)} blocks streamed, {format_bytes(streamed)}>"
            if self.blocks
            else f"<devmap: {held}>"
        )

    def stats(self) -> Stats:
        """Return the counters as they are now."""
        homes: dict[int | str, int] = {}
        for block in self.blocks:
            homes[block.tier] = homes.get(block.tier, 0) + block.layout.nbytes
        engine = self.engine
        counted = engine.counters if engine is not None else None
        return Stats(
            resident_bytes=self.resident_bytes,
            streamed_home_bytes=homes,
            slot_bytes={}
            if engine is None
            else {device.plain: nbytes for device, nbytes in engine.held_bytes().items()},
            mapped_bytes=0 if engine is None else engine.cpu_bytes(mapped=True),
            host_slot_bytes=0 if engine is None else engine.cpu_bytes(mapped=False),
            ring_bytes=engine.ring.nbytes if engine is not None and engine.ring is not None else 0,
            ring_is_pinned=engine is not None and engine.ring is not None and engine.ring.is_pinned,
            streamed_bytes=counted.streamed_bytes if counted else 0,
            staged_bytes=counted.staged_bytes if counted else 0,
            file_bytes=engine.readers.files.requested_bytes if engine is not None else 0,
            disk_bytes=counted.disk_bytes if counted else None,
            fetched_bytes=counted.fetched_bytes if counted else 0,
            hits=counted.hits if counted else 0,
            misses=counted.misses if counted else 0,
            order_misses=counted.order_misses if counted else 0,
            given_away=counted.given_away if counted else 0,
            stalls=counted.stalls if counted else 0,
            stall_seconds=counted.stall_seconds if counted else 0.0,
            stall_seconds_by_cause=dict(counted.stalls_by_cause) if counted else {},
            passes=counted.passes if counted else 0,
            last_pass_seconds=counted.last_pass_seconds if counted else None,
            last_pass_bound_by=binding(counted) if counted else None,
            predicted_seconds=self.plan.predicted_seconds,
            bound_seconds=self.plan.bound_seconds,
        )

    def trim(self) -> None:
        """Give back the memory of streamed blocks that run on the CPU from the system's cache.

        The next pass brings them in again.
        """
        if self.engine is not None:
            self.engine.trim()

    def remove(self) -> nn.Module:
        """Give the plain module back: no hooks, no threads, all weights real tensors.

        A model that was wholly on one device stays there. Otherwise everything comes to the CPU, where the
        module runs as one that was loaded plainly; weights on disk are read into memory, those on the CPU
        stay views of their file. A call of another thread that is under way ends with an error, unless the
        module as it is then serves it.

        Raises:
            StreamError: when a weight cannot be read; the model is as before then.
        """
        with self.engine.exclusive() if self.engine is not None else nullcontext():
            if self.hooks is not None:
                true_values = self._true_values()
                self.hooks.remove()
                for location, tensor in true_values:
                    location.table[location.key] = tensor
                    if location.owner in self.packings:
                        self.packings[location.owner].attach(tensor)
                        self.packings[location.owner].stream(on=False)
            if self.engine is not None:
                self.engine.close()
        self.hooks, self.engine, self.blocks = None, None, ()
        for module in (self.model, *self.model.children()):
            if module.__dict__.get("devmap") is self:
                del module.__dict__["devmap"]
        return self.model

    def _true_values(self) -> list[tuple[TensorLocation, torch.Tensor]]:
        """Return each place's tensor on the CPU; places of one tensor share it."""
        assert self.engine is not None
        homes = {
            binding.location.owner: (block, binding) for block in self.blocks for binding in block.bindings
        }
        made: dict[str, torch.Tensor] = {}
        found = []
        for location in self.locations:
            if location.owner not in made:
                now = location.table[location.key]
                assert now is not None
                if isinstance(now, StreamedWeight):
                    block, binding = homes[location.owner]
                    value, gradient = self.engine.value(block.home, location.owner), binding.requires_grad
                elif location.owner in self.packings:
                    packing, gradient = self.packings[location.owner], now.requires_grad
                    if now.device.type == "cpu":
                        value = now
                    else:
                        parts = {name: part.to("cpu") for name, part in packing.parts(now).items()}
                        value = packing.assemble(parts)
                else:
                    value, gradient = now.detach().to("cpu"), now.requires_grad
                same = (
                    isinstance(now, nn.Parameter)
                    and not isinstance(now, StreamedWeight)
                    and now.device == value.device
                )
                made[location.owner] = (
                    now
                    if same
                    else value
                    if isinstance(value, nn.Parameter)
                    else nn.Parameter(value, requires_grad=gradient)
                    if location.kind == "parameter"
                    else value
                )
            found.append((location, made[location.owner]))
        return found
