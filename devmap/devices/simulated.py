"""A simulated device as a backend: late copies, poisoned slots, virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from devmap.config.values.device import CPU, Device, Tier
from devmap.devices.backend import Event, HostSlab, Memory, Stream
from devmap.devices.cpu import CpuBackend, pageable
from devmap.devices.simulated_machine import SimulatedDevice, active_machine
from devmap.devices.simulated_tensor import SimulatedTensor, simulated
from devmap.errors import DeviceError

if TYPE_CHECKING:
    from devmap.devices.simulated_ledger import Ledger
    from devmap.devices.virtual_clock import ClockMark, VirtualStream

__all__ = ["POISON", "BudgetedCpuBackend", "SimulatedBackend", "poison"]

POISON = 0xFF
"""The byte that fills a slot which must not be read: all ones is NaN in every floating type of 16 bits or
more."""


def poison(slab: torch.Tensor) -> None:
    """Fill a tensor with bytes that show when a kernel reads them."""
    _raw(slab).view(torch.uint8).fill_(POISON)


@dataclass(eq=False)
class _SimulatedStream:
    """A stream for copies."""

    queue: VirtualStream
    device: SimulatedDevice
    seen_kernels: int = 0
    """What is queued from now on runs after the kernels up to this number."""

    def synchronize(self) -> None:
        self.queue.synchronize()
        self.device.settled_kernels = max(self.device.settled_kernels, self.seen_kernels)


@dataclass(eq=False)
class _SimulatedEvent:
    device: SimulatedDevice
    mark: ClockMark | None = None
    seen_kernels: int = 0

    def synchronize(self) -> None:
        if self.mark is not None:
            self.mark.stream.reach(self.mark)
            self.device.settled_kernels = max(self.device.settled_kernels, self.seen_kernels)


class SimulatedBackend:
    """`sim:n`.

    A copy that is queued on a stream poisons its destination at once and runs when it is waited for.
    """

    def __init__(self, simulated: SimulatedDevice) -> None:
        self.simulated = simulated
        self.device: Device = Device(Tier.ACCELERATOR, simulated.index, "sim")
        self.torch_device = torch.device("sim", simulated.index)

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Return a poisoned slab whose bytes count as held.

        Raises:
            OutOfMemoryError: past the device's budget.
        """
        self.simulated.ledger.require(nbytes)
        slab = simulated(pageable(nbytes), self.simulated, held=True)
        self.simulated.watch(slab.raw.untyped_storage())
        poison(slab)
        return slab

    @property
    def pins(self) -> bool:
        """As on most real devices."""
        return True

    def pinned_bytes(self, nbytes: int) -> int:
        """Return `nbytes`: no allocator rounds up."""
        return nbytes

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Host memory; as good as pinned, since every queued copy is late."""
        machine = active_machine()
        host = CpuBackend() if machine is None or machine.host is None else BudgetedCpuBackend(machine.host)
        return HostSlab(host.allocate(nbytes), is_pinned=True)

    def stream(self) -> Stream:
        """Return a stream of the virtual clock."""
        return _SimulatedStream(self.simulated.clock.stream(f"{self.torch_device} copies"), self.simulated)

    def event(self) -> Event:
        """Return a mark in a stream of the virtual clock."""
        return _SimulatedEvent(self.simulated)

    def record(self, event: Event, stream: Stream | None = None) -> None:
        """Put the mark behind what is queued."""
        mark = cast("_SimulatedEvent", event)
        if stream is None:
            mark.mark, mark.seen_kernels = self.simulated.compute.mark(), self.simulated.kernels
        else:
            copies = cast("_SimulatedStream", stream)
            mark.mark, mark.seen_kernels = copies.queue.mark(), copies.seen_kernels

    def wait(self, event: Event, stream: Stream | None = None) -> None:
        """Wait in virtual time. On the compute stream this is what makes late copies happen."""
        found = cast("_SimulatedEvent", event)
        if found.mark is None:
            return
        if stream is None:
            self.simulated.compute.wait_now(found.mark)
            return
        copies = cast("_SimulatedStream", stream)
        copies.queue.wait(found.mark)
        if found.device is self.simulated:
            copies.seen_kernels = max(copies.seen_kernels, found.seen_kernels)

    def copy(self, destination: torch.Tensor, source: torch.Tensor, *, stream: Stream | None = None) -> None:
        """Copy now, or with a stream when somebody waits for it; until then the destination is poison.

        Raises:
            DeviceError: when the copy is queued into a slab that kernels have used and the stream does not
                wait for them.
        """
        rate = self.simulated.host_to_device
        seconds = 0.0 if rate is None else source.nbytes / rate
        if stream is None:
            self.simulated.compute.run(lambda: _copy(destination, source), seconds=seconds)
            return
        copies = cast("_SimulatedStream", stream)
        self._refuse_race(destination, copies)
        poison(destination)
        copies.queue.enqueue(lambda: _raw(destination).copy_(_raw(source)), seconds=seconds)

    def discard(self, slab: torch.Tensor) -> None:
        """Poison the slab."""
        poison(slab)

    def storage(self, slab: torch.Tensor) -> torch.UntypedStorage:
        """Return the storage of the numbers behind it: all views of the slab share it."""
        return _raw(slab).untyped_storage()

    @property
    def is_capturing(self) -> bool:
        """Never: there are no graphs here."""
        return False

    def synchronize(self) -> None:
        """Run everything that is queued."""
        self.simulated.clock.synchronize()
        self.simulated.settled_kernels = self.simulated.kernels

    def memory(self) -> Memory:
        """Return the budget, and what the ledger leaves of it."""
        ledger = self.simulated.ledger
        return Memory(
            total_bytes=ledger.budget_bytes, free_bytes=max(0, ledger.budget_bytes - ledger.charged_bytes)
        )

    def _refuse_race(self, destination: torch.Tensor, stream: _SimulatedStream) -> None:
        """Kernels run at once here, but on a real device they may still be under way.

        The copy has to wait for them.
        """
        used = self.simulated.last_kernel.get(id(_raw(destination).untyped_storage()), 0)
        if used > max(stream.seen_kernels, self.simulated.settled_kernels):
            raise DeviceError(
                f"a copy into a slab of {self.torch_device} may overtake kernels that still use it",
                help="record an event after those kernels and let the copy's stream wait for it",
            )


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.raw if isinstance(tensor, SimulatedTensor) else tensor


def _copy(destination: torch.Tensor, source: torch.Tensor) -> None:
    with torch.no_grad():
        destination.copy_(source)


class BudgetedCpuBackend(CpuBackend):
    """Host memory with a budget of bytes that are allocated through it."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.device: Device = CPU

    def allocate(self, nbytes: int) -> torch.Tensor:
        """Return a slab that counts against the budget.

        Raises:
            OutOfMemoryError: past the budget.
        """
        self.ledger.require(nbytes)
        slab = pageable(nbytes)
        self.ledger.count(slab.untyped_storage(), held=True)
        return slab

    def pinned_allocate(self, nbytes: int) -> HostSlab:
        """Return a slab that counts against the budget; not pinned."""
        return HostSlab(self.allocate(nbytes), is_pinned=False, reason="the CPU reads host memory in place")

    def memory(self) -> Memory:
        """Return the budget, and what is left of it."""
        return Memory(
            total_bytes=self.ledger.budget_bytes,
            free_bytes=max(0, self.ledger.budget_bytes - self.ledger.charged_bytes),
        )
