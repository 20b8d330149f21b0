"""Every accelerator of torch: CUDA and ROCm, xpu, mps, npu and what else torch knows.

torch gives each kind of device a module of its own (`torch.cuda`, `torch.xpu`) with the same names in it;
where a kind lacks a name, `torch.accelerator` has it. Kinds are asked through their own modules first,
because `torch.accelerator` serves one kind a process, and that is `sim` once simulated devices were
registered.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from devmap.config.values.device import Device, Tier
from devmap.devices.backend import Event, HostSlab, Memory, Stream
from devmap.devices.cpu import pageable
from devmap.devices.host_memory import host_memory
from devmap.errors import OutOfMemoryError

__all__ = ["AcceleratorBackend", "accelerator_type", "device_count"]

_UNIFIED = frozenset({"mps"})
"""Device types that always share the host's memory: pinning makes no sense there."""


def accelerator_type() -> str | None:
    """Return what torch calls this machine's kind of accelerator.

    None where there is none, or none available.
    """
    # Asked first: `sim` hides it from `torch.accelerator` once it was registered.
    if torch.cuda.is_available():
        return "cuda"
    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def device_count(kind: str) -> int:
    """Return how many devices of a kind this machine has; 0 for a kind that this torch was not built for."""
    try:
        module = torch.get_device_module(kind)
    except RuntimeError:  # torch's word for an unknown kind
        return 0
    return int(module.device_count()) if module.is_available() else 0


class AcceleratorBackend:
    """One accelerator, such as `cuda:0`, `xpu:1` or `mps:0`."""

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device
        self.device: Device = Device(Tier.ACCELERATOR, torch_device.index or 0, torch_device.type)
        self._module: Any = torch.get_device_module(torch_device.type)

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Return a slab from torch's caching allocator for this kind.

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
        """Whether pinned memory helps: not on unified memory, nor on integrated devices such as Jetson."""
        if self.torch_device.type in _UNIFIED:
            return False
        properties = getattr(self._module, "get_device_properties", None)
        return properties is None or not getattr(properties(self.torch_device), "is_integrated", False)

    def pinned_bytes(self, nbytes: int) -> int:
        """Return what torch's allocator of pinned memory takes: it rounds up to a power of two."""
        return 1 << max(0, nbytes - 1).bit_length()

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Return page-locked host memory.

        Ordinary memory with the reason where the device shares the host's, or where the system refuses to
        lock that much.
        """
        if not self.pins:
            name = self.torch_device.type if self.torch_device.type in _UNIFIED else "the device"
            return HostSlab(pageable(nbytes), is_pinned=False, reason=f"{name} shares the host's memory")
        try:
            return HostSlab(torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), is_pinned=True)
        except RuntimeError as error:
            first_line = str(error).partition("\n")[0]
            reason = f"the system refused to pin {nbytes:,} bytes: {first_line}"
            return HostSlab(pageable(nbytes), is_pinned=False, reason=reason)

    def stream(self) -> Stream:
        """Return a new stream of this device."""
        made = getattr(self._module, "Stream", torch.Stream)(device=self.torch_device)
        return cast("Stream", made)

    def event(self) -> Event:
        """Return a new event without timing."""
        own = getattr(self._module, "Event", None)
        return cast("Event", torch.Event(device=self.torch_device) if own is None else own())

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
        queue = self._queue(stream)
        # `torch.cuda.stream(queue)` sets the device, too; a bare torch.Stream is its own context.
        current = self._module.stream(queue) if hasattr(self._module, "stream") else queue
        with torch.no_grad(), current:
            destination.copy_(source, non_blocking=True)

    def discard(self, slab: torch.Tensor) -> None:
        """Do nothing: only simulated devices poison what is free."""

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """Return the slab's own storage."""
        return slab.untyped_storage()

    @property
    def is_capturing(self) -> bool:
        """Whether the current stream is being captured; only CUDA and ROCm have graphs."""
        return self.torch_device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def synchronize(self) -> None:
        """Wait until everything on this device is done."""
        own = getattr(self._module, "synchronize", None)
        if own is None or self.torch_device.type in _UNIFIED:  # torch.mps takes no device
            torch.accelerator.synchronize(self.torch_device)
        else:
            own(self.torch_device)

    def memory(self) -> Memory:
        """Return the driver's figures, with what torch's allocator holds but does not use counted as free.

        The host's figures on unified memory.
        """
        if self.torch_device.type in _UNIFIED:
            return host_memory()
        own = getattr(self._module, "mem_get_info", torch.accelerator.get_memory_info)
        free, total = own(self.torch_device)
        cached = 0
        if hasattr(self._module, "memory_reserved"):
            reserved = self._module.memory_reserved(self.torch_device)
            cached = reserved - self._module.memory_allocated(self.torch_device)
        return Memory(total_bytes=total, free_bytes=free + cached)

    def _queue(self, stream: Stream | None) -> torch.Stream:
        if stream is not None:
            return cast("torch.Stream", stream)
        current = getattr(self._module, "current_stream", torch.accelerator.current_stream)
        return cast("torch.Stream", current(self.torch_device))
