"""A streamed block: the tensors of one placement, as one slab.

And the places in the module tree they are bound to.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from devmap.runtime.storage.homes import DiskHome, HostHome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.runtime.storage.module_scan import TensorLocation
    from devmap.runtime.storage.packing import PackedParameter
    from devmap.runtime.storage.readers import PendingRead
    from devmap.runtime.storage.weights import SlabLayout

__all__ = ["BlockMemory", "StreamedBlock", "TensorBinding"]


class BlockMemory(Protocol):
    """Where a block's bytes are while it runs: a slot, or its file's pages."""

    def views(self, layout: SlabLayout) -> Mapping[str, torch.Tensor]:
        """Return the block's tensors there, by name."""


@dataclass(frozen=True, slots=True)
class TensorBinding:
    """One place of the module tree and what stands there while the block does not run."""

    location: TensorLocation
    placeholder: torch.Tensor
    """A `StreamedWeight`, or, for a tied weight that stays on the device, that."""
    requires_grad: bool
    """What it was before it was streamed."""
    packing: PackedParameter | None = None
    """Of a quantised parameter, whose module keeps more than its table shows."""


@dataclass(eq=False)
class StreamedBlock:
    """One streamed block."""

    index: int
    """Among the blocks that execute on the same device, in the model's order."""
    path: str
    device: Device
    home: DiskHome | HostHome
    bindings: Sequence[TensorBinding]
    tier: int | str
    """Where it lives, as a device map names it: `cpu` or `disk`."""
    place: BlockMemory | None = None
    """Where it is bound now."""
    depth: int = 0
    """How many of its forwards are under way: more than one where a block calls itself."""
    _bound: dict[int, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def layout(self) -> SlabLayout:
        """How its tensors lie in a slab."""
        return self.home.layout

    def start(self, slab: torch.Tensor) -> PendingRead:
        """Read it from disk into host memory in the background."""
        assert isinstance(self.home, DiskHome)
        return self.home.start(slab)

    def holders(self, place: BlockMemory) -> int:
        """Return a count of what refers to the tensors over a place.

        It grows when somebody keeps one of them beyond the forward.
        """
        return sum(map(sys.getrefcount, self._bound.get(id(place), ())))

    def prepare(self, place: BlockMemory) -> None:
        """Make the tensors over a place, once: the parameters stay the same objects."""
        if id(place) in self._bound:
            return
        with torch.inference_mode(False), torch.no_grad():  # positional: dynamo knows no other way
            views = place.views(self.layout)
            made = {
                name: nn.Parameter(view, requires_grad=False)
                if self._is_parameter(name) and not isinstance(view, nn.Parameter)
                else view
                for name, view in views.items()
            }
        self._bound[id(place)] = [
            made.get(binding.location.owner, binding.placeholder) for binding in self.bindings
        ]

    def bind(self, place: BlockMemory) -> None:
        """Let the modules see the tensors in a place."""
        self.prepare(place)
        for binding, tensor in zip(self.bindings, self._bound[id(place)], strict=True):
            binding.location.table[binding.location.key] = tensor
            if binding.packing is not None:
                binding.packing.attach(tensor)
        self.place = place

    def locate(self, address: int) -> tuple[str, int] | None:
        """Return the weight that has its bytes at an address while the block is in.

        And how far from its first byte; None for none.
        """
        for binding, tensor in (
            zip(self.bindings, self._bound[id(self.place)], strict=True) if self.place is not None else ()
        ):
            if binding.packing is not None:
                continue  # backward keeps a quantised weight itself, and its slab is given away
            start = tensor.data_ptr()
            if start <= address < start + max(1, tensor.nbytes):
                return binding.location.owner, address - start
        return None

    def unbind(self) -> None:
        """Put the placeholders back."""
        for binding in self.bindings:
            binding.location.table[binding.location.key] = binding.placeholder
            if binding.packing is not None:
                binding.packing.detach()
        self.place = None

    def forget(self, place: BlockMemory) -> None:
        """Drop the tensors over a place that is going away."""
        self._bound.pop(id(place), None)

    def forget_all(self) -> None:
        """Drop the tensors over all places."""
        self._bound.clear()

    def _is_parameter(self, name: str) -> bool:
        return any(
            binding.location.owner == name and binding.location.kind == "parameter"
            for binding in self.bindings
        )
