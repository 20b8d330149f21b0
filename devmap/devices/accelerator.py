"""Accelerators other than CUDA through `torch.accelerator`: xpu, mps, npu and what else torch knows."""

from __future__ import annotations

from typing import cast

import torch

from devmap.config.values.device import Device, Tier
from devmap.devices.backend import Event, HostSlab, Memory, Stream
from devmap.devices.cpu import pageable
from devmap.devices.host_memory import host_memory
from devmap.errors import OutOfMemoryError

__all__ = ["AcceleratorBackend", "accelerator_type", "device_count"]

_UNIFIED = frozenset({"mps"})
"""Device types that share the host's memory: pinning makes no sense there."""


def accelerator_type() -> str | None:
    """What torch calls this machine's kind of accelerator; None where there is none, or none available."""
    if (
        torch.cuda.is_available()
    ):  # asked first: `sim` hides it from `torch.accelerator` once it was registered
        return "cuda"
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def device_count(kind: str) -> int:
    """How many devices of a kind this machine has; 0 for a kind that this torch was not built for."""
    try:
        module = torch.get_device_module(kind)
    except RuntimeError:  # torch's word for an unknown kind
        return 0
    return int(module.device_count()) if module.is_available() else 0


class AcceleratorBackend:
    """A device that `torch.accelerator` serves, such as `xpu:0` or `mps:0`."""

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device
        self.device: Device = Device(Tier.ACCELERATOR, torch_device.index or 0, torch_device.type)

    def allocate(self, nbytes: int) -> torch.Tensor:
        """A slab from the device's allocator.

        Raises:
            OutOfMemoryError: when the device has not that many bytes left.
        """
        try:
            return torch.empty(nbytes, dtype=torch.uint8, device=self.torch_device)
        except torch.OutOfMemoryError as error:
            memory = self.memory()
            used = memory.total_bytes - memory.free_bytes
            raise OutOfMemoryError(
                str(self.torch_device),
                requested_bytes=nbytes,
                used_bytes=used,
                budget_bytes=memory.total_bytes,
            ) from error

    @property
    def pins(self) -> bool:
        """Not on unified memory."""
        return self.torch_device.type not in _UNIFIED

    def pinned_bytes(self, nbytes: int) -> int:
        """Torch's allocator of pinned memory rounds up to a power of two."""
        return 1 << max(0, nbytes - 1).bit_length()

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Page-locked host memory.

        Ordinary memory with the reason on unified memory or where the system refuses.
        """
        if not self.pins:
            return HostSlab(
                pageable(nbytes), is_pinned=False, reason=f"{self.torch_device.type} shares the host's memory"
            )
        try:
            return HostSlab(torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), is_pinned=True)
        except RuntimeError as error:
            reason = f"the system refused to pin {nbytes:,} bytes: {str(error).partition(chr(10))[0]}"
            return HostSlab(pageable(nbytes), is_pinned=False, reason=reason)

    def stream(self) -> Stream:
        """A new stream."""
        return cast("Stream", torch.Stream(device=self.torch_device))

    def event(self) -> Event:
        """A new event."""
        return cast("Event", torch.Event(device=self.torch_device))

    def record(self, event: Event, stream: Stream | None = None) -> None:
        """Record on a stream, by default the device's current one."""
        cast("torch.Event", event).record(self._queue(stream))

    def wait(self, event: Event, stream: Stream | None = None) -> None:
        """Let a stream wait, by default the device's current one."""
        self._queue(stream).wait_event(cast("torch.Event", event))

    def copy(self, destination: torch.Tensor, source: torch.Tensor, *, stream: Stream | None = None) -> None:
        """Copy on a stream, without blocking where the host side is pinned."""
        if stream is None:
            with torch.no_grad():
                destination.copy_(source)
            return
        with torch.no_grad(), self._queue(stream):
            destination.copy_(source, non_blocking=True)

    def discard(self, slab: torch.Tensor) -> None:
        """Nothing to do."""

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """The slab's own."""
        return slab.untyped_storage()

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.accelerator.synchronize(self.torch_device)

    def memory(self) -> Memory:
        """The device's figures; the host's on unified memory."""
        if self.torch_device.type in _UNIFIED:
            return host_memory()
        free, total = torch.accelerator.get_memory_info(self.torch_device)
        return Memory(total_bytes=total, free_bytes=free)

    def _queue(self, stream: Stream | None) -> torch.Stream:
        return (
            torch.accelerator.current_stream(self.torch_device)
            if stream is None
            else cast("torch.Stream", stream)
        )
