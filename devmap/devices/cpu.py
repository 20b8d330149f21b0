"""The CPU as a device: no streams, copies are done when they return."""

from __future__ import annotations

import torch

from devmap.config.values.device import CPU, Device
from devmap.devices.backend import Event, HostSlab, Memory, Stream
from devmap.devices.host_memory import host_memory
from devmap.errors import OutOfMemoryError

__all__ = ["CpuBackend", "pageable"]


class _Done:
    """A stream or an event of a device that does everything at once."""

    def synchronize(self) -> None:
        """Do nothing: no work is ever outstanding."""


def pageable(nbytes: int) -> torch.Tensor:
    """Flat uninitialised bytes in ordinary host memory.

    Raises:
        OutOfMemoryError: when the system refuses.
    """
    try:
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu")
    except (RuntimeError, MemoryError) as error:  # torch's allocator has no type of its own for this
        memory = host_memory()
        used = memory.total_bytes - memory.free_bytes
        raise OutOfMemoryError(
            "cpu", requested_bytes=nbytes, used_bytes=used, budget_bytes=memory.total_bytes
        ) from error


class CpuBackend:
    """Host memory, and kernels on the CPU."""

    device: Device = CPU
    torch_device = torch.device("cpu")

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Return a slab in host memory."""
        return pageable(nbytes)

    @property
    def pins(self) -> bool:
        """No device copies from here."""
        return False

    def pinned_bytes(self, nbytes: int) -> int:
        """Return `nbytes`: no allocator rounds up."""
        return nbytes

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Ordinary host memory: no device copies from it."""
        return HostSlab(pageable(nbytes), is_pinned=False, reason="the CPU reads host memory in place")

    def stream(self) -> Stream:
        """Return a stream on which nothing is ever outstanding."""
        return _Done()

    def event(self) -> Event:
        """Return an event that is always reached."""
        return _Done()

    def record(self, event: Event, stream: Stream | None = None) -> None:
        """Do nothing: the host runs in order."""

    def wait(self, event: Event, stream: Stream | None = None) -> None:
        """Do nothing: the host runs in order."""

    # The protocol's signature.
    def copy(self, destination: torch.Tensor, source: torch.Tensor, *, stream: Stream | None = None) -> None:  # noqa: ARG002
        """Copy at once."""
        with torch.no_grad():
            destination.copy_(source)

    def discard(self, slab: torch.Tensor) -> None:
        """Do nothing: the host runs in order."""

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """Return the slab's own."""
        return slab.untyped_storage()

    @property
    def is_capturing(self) -> bool:
        """Never: there are no graphs here."""
        return False

    def synchronize(self) -> None:
        """Do nothing: no work is ever outstanding."""

    def memory(self) -> Memory:
        """Return this process's share of the host's memory.

        The system's figures, or the control group's limit where that is lower.
        """
        return host_memory()
