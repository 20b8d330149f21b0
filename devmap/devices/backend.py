"""What the runtime asks of a device: bytes, streams, events and copies. One file each implements it.

A stream is a queue of work on a device, an event a mark in such a queue. The compute stream is torch's
current stream; it is meant wherever `stream` is None. Two rules make a slot safe: the copy stream waits for
"compute done", the compute stream waits for "copy done". Neither blocks the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from devmap.config.values.device import Device

__all__ = ["Backend", "Event", "HostSlab", "Memory", "Stream"]


class Stream(Protocol):
    """A queue of work on a device."""

    def synchronize(self) -> None:
        """Block the host until everything that is queued here is done."""


class Event(Protocol):
    """A mark in a stream. One that was never recorded counts as reached."""

    def synchronize(self) -> None:
        """Block the host until the mark is reached."""


@dataclass(frozen=True, slots=True)
class Memory:
    """A device's memory in bytes."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class HostSlab:
    """Flat bytes in host memory."""

    tensor: torch.Tensor
    """One dimension, `torch.uint8`, on the CPU."""
    is_pinned: bool
    """Whether copies from here can run while the host goes on. False where pinning failed or makes no sense.
    """
    reason: str = ""
    """Why it is not pinned, in a sentence; empty where it is."""


class Backend(Protocol):
    """One device."""

    @property
    def device(self) -> Device:
        """The device that this serves."""

    @property
    def torch_device(self) -> torch.device:
        """What torch calls it."""

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Return a slab of `nbytes` on the device: flat, `torch.uint8`, not initialised.

        It is freed when nothing refers to it.

        Raises:
            OutOfMemoryError: when the device has not that many bytes left.
        """

    @property
    def pins(self) -> bool:
        """Whether copies from pinned host memory run beside the host.

        Not on the CPU, nor where the device shares its memory.
        """

    def pinned_bytes(self, nbytes: int) -> int:
        """Return what `pinned_allocate(nbytes)` takes of host memory, in bytes."""

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Return a slab of `nbytes` in host memory to copy from.

        Pinned where the device can use that, else pageable with the reason.
        """

    def stream(self) -> Stream:
        """Return a new stream for copies."""

    def event(self) -> Event:
        """Return a new event."""

    def record(self, event: Event, stream: Stream | None = None) -> None:
        """Put the mark behind everything that is queued on a stream now.

        An earlier mark of this event is forgotten.
        """

    def wait(self, event: Event, stream: Stream | None = None) -> None:
        """Make what is queued on a stream from now on wait for the mark. The host goes on."""

    def copy(self, destination: torch.Tensor, source: torch.Tensor, *, stream: Stream | None = None) -> None:
        """Copy `source` into `destination` (same shape and dtype; one of them on this device).

        On the compute stream the bytes may be used by kernels that follow, and by the host, at once. With a
        `stream` the copy is queued there and the host goes on: the source must stay as it is, and the
        destination must not be read, until an event that is recorded after it has been waited for.
        """

    def discard(self, slab: torch.Tensor) -> None:
        """Say that the bytes of a slab mean nothing until the next copy into it: the slot is free.

        Real devices do nothing. Simulated ones fill it with poison, so that a kernel that still reads it
        shows.
        """

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """Return where the bytes of a slab are: what all its views share, and nothing else."""

    @property
    def is_capturing(self) -> bool:
        """Whether the compute stream records a graph now instead of running kernels."""

    def synchronize(self) -> None:
        """Block the host until everything on this device is done."""

    def memory(self) -> Memory:
        """Return the device's memory now, in bytes."""
