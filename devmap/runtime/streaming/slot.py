"""One slot: a slab on an executing device, and the block that is in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from devmap.devices.backend import Backend, Event
    from devmap.runtime.storage.weights import SlabLayout
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["Filling", "Slot", "new_slot"]


class Filling(Protocol):
    """Bytes on their way into a slot."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding on the host."""

    def settle(self) -> None:
        """Block until nothing is outstanding, whether it went well or not."""

    def wait(self) -> None:
        """Block until the bytes are there, or their copy is queued; raises what went wrong."""


@dataclass(eq=False)
class Slot:
    """A slab on the executing device."""

    slab: torch.Tensor
    computed: Event
    """Its last block's kernels are done."""
    copied: Event
    """Its block's bytes have arrived."""
    block: StreamedBlock | None = None
    filling: Filling | None = None
    in_use: bool = False
    is_extra: bool = False
    """Made for one call, where all slots were in use."""
    version: int = 0
    """`writes` when its block came in; another count when it leaves means that a weight was written to."""
    holders: tuple[int, int] = (0, 0)
    """What referred to the slab and to its block's tensors when the block came in; more when it leaves means
    that one was kept."""

    def views(self, layout: SlabLayout) -> dict[str, torch.Tensor]:
        """Return a block's tensors in it."""
        return layout.views(self.slab)

    @property
    def writes(self) -> int:
        """Torch's count of writes to the slab."""
        return self.slab._version  # noqa: SLF001 - torch's counter of writes


def new_slot(backend: Backend, nbytes: int) -> Slot:
    """Allocate a slot of `nbytes`.

    Raises:
        OutOfMemoryError: when the device has no room for it.
    """
    slot = Slot(allocate_slab(backend, nbytes), backend.event(), backend.event())
    backend.record(slot.computed)
    return slot


def allocate_slab(backend: Backend, nbytes: int) -> torch.Tensor:
    """Allocate the slab of a slot. Whoever calls records `computed` afterwards.

    An allocator that caches may hand out bytes that kernels on the compute stream still read: it only keeps
    the order of that one stream. The first copy into the slab, on another stream, has to wait for them.

    Raises:
        OutOfMemoryError: when the device has no room for it.
    """
    with torch.inference_mode(mode=False):
        return backend.allocate(nbytes)
