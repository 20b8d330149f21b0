"""NVIDIA and AMD accelerators through `torch.cuda`."""

from __future__ import annotations

from typing import cast

import torch

from devmap.config.values.device import Device, Tier
from devmap.devices.backend import Event, HostSlab, Memory, Stream
from devmap.devices.cpu import pageable
from devmap.errors import OutOfMemoryError

__all__ = ["CudaBackend"]


class CudaBackend:
    """`cuda:n`."""

    def __init__(self, index: int) -> None:
        self.device: Device = Device(Tier.ACCELERATOR, index, "cuda")
        self.torch_device = torch.device("cuda", index)

    def allocate(self, nbytes: int) -> torch.Tensor:
        """A slab from torch's caching allocator.

        Raises:
            OutOfMemoryError: when the device has not that many bytes left.
        """
        try:
            return torch.empty(nbytes, dtype=torch.uint8, device=self.torch_device)
        except torch.cuda.OutOfMemoryError as error:
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
        """Not on integrated devices, such as Jetson: they share the host's memory."""
        return not torch.cuda.get_device_properties(self.torch_device).is_integrated

    def pinned_bytes(self, nbytes: int) -> int:
        """Torch's allocator of pinned memory rounds up to a power of two."""
        return 1 << max(0, nbytes - 1).bit_length()

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Page-locked host memory.

        Ordinary memory with the reason on integrated devices, or where the system refuses to lock that much.
        """
        if not self.pins:
            return HostSlab(pageable(nbytes), is_pinned=False, reason="the device shares the host's memory")
        try:
            return HostSlab(torch.empty(nbytes, dtype=torch.uint8, pin_memory=True), is_pinned=True)
        except RuntimeError as error:
            return HostSlab(
                pageable(nbytes),
                is_pinned=False,
                reason=f"the system refused to pin {nbytes:,} bytes: {_first_line(error)}",
            )

    def stream(self) -> Stream:
        """A new CUDA stream."""
        return cast("Stream", torch.cuda.Stream(device=self.torch_device))  # type: ignore[no-untyped-call]

    def event(self) -> Event:
        """A new CUDA event without timing."""
        return cast("Event", torch.cuda.Event())  # type: ignore[no-untyped-call]

    def record(self, event: Event, stream: Stream | None = None) -> None:
        """Record on a stream, by default the device's current one."""
        cast("torch.cuda.Event", event).record(self._queue(stream))

    def wait(self, event: Event, stream: Stream | None = None) -> None:
        """Let a stream wait, by default the device's current one."""
        self._queue(stream).wait_event(cast("torch.cuda.Event", event))

    def copy(self, destination: torch.Tensor, source: torch.Tensor, *, stream: Stream | None = None) -> None:
        """Copy on a stream, without blocking where the host side is pinned."""
        if stream is None:
            with torch.no_grad():
                destination.copy_(source)
            return
        with torch.no_grad(), torch.cuda.stream(self._queue(stream)):
            destination.copy_(source, non_blocking=True)

    def discard(self, slab: torch.Tensor) -> None:
        """Nothing to do."""

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """The slab's own."""
        return slab.untyped_storage()

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self.torch_device)

    def memory(self) -> Memory:
        """The driver's figures, with what torch's allocator holds but does not use counted as free."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        cached = torch.cuda.memory_reserved(self.torch_device) - torch.cuda.memory_allocated(
            self.torch_device
        )
        return Memory(total_bytes=total, free_bytes=free + cached)

    def _queue(self, stream: Stream | None) -> torch.cuda.Stream:
        return (
            torch.cuda.current_stream(self.torch_device)
            if stream is None
            else cast("torch.cuda.Stream", stream)
        )


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
