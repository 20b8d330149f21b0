"""Static slots on one executing device: which block is in which, and what comes next.

Two rules make a slot safe without blocking the host: the copy stream waits for "compute done" of the block before, and the
compute stream waits for "copy done" of this one. A slot is filled again as soon as its block has left, with the next block
of the recorded order that is not in a slot yet, round the end of a pass into the next one; never with a least recently used
rule, which misses each time on a cycle.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from devmap.errors import StreamError
from devmap.runtime.homes import DiskHome, HostHome
from devmap.runtime.order import Order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future

    from devmap.devices.backend import Backend, Event
    from devmap.runtime.counters import Counters
    from devmap.runtime.ring import Ring
    from devmap.runtime.units import Unit
    from devmap.runtime.weights import Layout

__all__ = ["Filling", "Lane", "Slot", "new_slot", "wait_for", "written_to"]


class Filling(Protocol):
    """Bytes on their way into a slot."""

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding on the host."""

    def settle(self) -> None:
        """Block until nothing is outstanding, whether it went well or not."""

    def wait(self) -> None:
        """Block until the bytes are there, or their copy is queued; raises what went wrong."""


@dataclass(frozen=True, slots=True)
class _Transfer:
    future: Future[None]

    @property
    def is_done(self) -> bool:
        return self.future.done()

    def settle(self) -> None:
        self.future.exception()

    def wait(self) -> None:
        self.future.result()


@dataclass(eq=False)
class Slot:
    """A slab on the executing device."""

    slab: torch.Tensor
    computed: Event
    """Its last block's kernels are done."""
    copied: Event
    """Its block's bytes have arrived."""
    unit: Unit | None = None
    filling: Filling | None = None
    in_use: bool = False
    is_extra: bool = False
    """Made for one call, where all slots were in use."""
    version: int = 0
    """`writes` when its block came in; another count when it leaves means that a weight was written to."""

    def views(self, layout: Layout) -> dict[str, torch.Tensor]:
        """A block's tensors in it."""
        return layout.views(self.slab)

    @property
    def writes(self) -> int:
        """Torch's count of writes to the slab."""
        return self.slab._version  # noqa: SLF001 - torch's counter of writes


def new_slot(backend: Backend, nbytes: int) -> Slot:
    """A slot of `nbytes`.

    Raises:
        OutOfMemoryError: when the device has no room for it.
    """
    with torch.inference_mode(mode=False):
        return Slot(backend.allocate(nbytes), backend.event(), backend.event())


class Lane:
    """The streamed blocks of one executing device.

    Not safe for two threads at once by itself: callers hold `devmap.runtime.engine`'s lock while a block is in.
    """

    def __init__(
        self, backend: Backend, units: Sequence[Unit], slots: list[Slot], ring: Ring | None, counters: Counters, *, feeder: Executor | None
    ) -> None:
        """`feeder` runs one transfer after another, so that reading and pageable copies do not block forward; None on the CPU."""
        self.backend = backend
        self.units = units
        self.slots = slots
        self._ring = ring
        self._counters = counters
        self._order = Order(len(units))
        self._stream = backend.stream()
        self._feeder = feeder

    def bring(self, unit: Unit) -> None:
        """Make a block's bytes ready in a slot and bind its parameters to it.

        Raises:
            StreamError: when a read failed, twice where it was read ahead. The block can be asked for again.
        """
        slot = self._slot_of(unit)
        if slot is None:
            self._counters.misses += 1
            slot = self._victim(unit)
            self._fill(unit, slot)
            self._wait(slot)
        else:
            self._counters.hits += 1
            self._wait_or_retry(unit, slot)
        self.backend.wait(slot.copied)
        slot.in_use = True
        slot.version = slot.writes
        unit.bind(slot)
        if not self._order.record(unit.index):
            self._counters.order_misses += 1
        self.read_ahead()

    def free(self, unit: Unit, *, failed: bool) -> None:
        """Take a block's parameters out of its slot, and fill the slot with what comes next.

        Raises:
            StreamError: when the forward wrote to one of the block's weights.
        """
        slot = unit.place
        assert isinstance(slot, Slot)
        unit.unbind()
        self.backend.record(slot.computed)
        slot.in_use = False
        if slot.is_extra:
            unit.forget(slot)
        if slot.writes != slot.version:
            slot.unit = slot.filling = None
            if failed:
                return
            raise written_to(unit)
        self.read_ahead()

    def read_ahead(self) -> None:
        """Start to bring the next blocks into free slots, and those after them into the ring."""
        wanted = [self.units[index] for index in self._order.upcoming(len(self.slots))]
        for unit in wanted:
            if self._slot_of(unit) is not None:
                continue
            slot = next((slot for slot in self.slots if _is_free(slot) and slot.unit not in wanted), None)
            if slot is None:
                break
            self._fill(unit, slot)
        if self._ring is None:
            return
        for index in self._order.upcoming(len(self.slots) + len(self._ring.slabs)):
            unit = self.units[index]
            if isinstance(unit.home, DiskHome) and self._slot_of(unit) is None and not self._ring.stage(unit):
                break

    @property
    def nbytes(self) -> int:
        """Bytes of its slots."""
        return sum(slot.slab.numel() for slot in self.slots)

    def trim(self) -> None:
        """Slots are made once and stay."""

    def close(self) -> None:
        """Let what is under way end, and drop the slots."""
        for slot in self.slots:
            if slot.filling is not None:
                slot.filling.settle()
        if self._feeder is not None:
            self._feeder.shutdown(wait=True)
        for unit in self.units:
            unit.forget_all()
        self.slots.clear()

    def _slot_of(self, unit: Unit) -> Slot | None:
        return next((slot for slot in self.slots if slot.unit is unit), None)

    def _victim(self, unit: Unit) -> Slot:
        """The slot whose block is needed last; one more where a block calls another and all slots are in use."""
        idle = [slot for slot in self.slots if not slot.in_use]
        if not idle:
            extra = new_slot(self.backend, unit.layout.nbytes)
            extra.is_extra = True
            return extra
        upcoming = [self.units[index] for index in self._order.upcoming(len(self.slots))]
        slot = max(idle, key=lambda each: upcoming.index(each.unit) if each.unit in upcoming else len(upcoming))
        if slot.filling is not None:
            slot.filling.settle()
        return slot

    def _fill(self, unit: Unit, slot: Slot) -> None:
        slot.unit = unit
        self.backend.discard(slot.slab)
        disk = unit.home.recipe.nbytes if isinstance(unit.home, DiskHome) else 0
        self._counters.add(streamed=unit.layout.nbytes, disk=disk)
        slot.filling = unit.start(slot.slab) if self._feeder is None else _Transfer(self._feeder.submit(self._transfer, unit, slot))

    def _wait(self, slot: Slot) -> None:
        assert slot.filling is not None
        try:
            wait_for(slot.filling, self._counters)
        except BaseException:
            slot.filling.settle()
            slot.unit = slot.filling = None
            raise

    def _wait_or_retry(self, unit: Unit, slot: Slot) -> None:
        try:
            self._wait(slot)
        except StreamError:  # it was read ahead, maybe long ago: what was wrong then may be right now
            self._fill(unit, slot)
            self._wait(slot)

    def _transfer(self, unit: Unit, slot: Slot) -> None:
        """Copy a block to its slot; runs on the feeder."""
        home, backend, stream = unit.home, self.backend, self._stream
        with torch.no_grad():
            if isinstance(home, HostHome):
                backend.wait(slot.computed, stream)
                for offset, flat in home.parts:
                    backend.copy(slot.slab[offset : offset + flat.numel()], flat, stream=stream)
                backend.record(slot.copied, stream)
                return
            assert self._ring is not None
            staged = self._ring.take(unit)
            try:
                assert staged.reading is not None
                staged.reading.wait()
                backend.wait(slot.computed, stream)
                size = home.layout.nbytes
                backend.copy(slot.slab[:size], staged.slab[:size], stream=stream)
                backend.record(slot.copied, stream)
                slot.copied.synchronize()
            finally:
                self._ring.release(staged)


def wait_for(filling: Filling, counters: Counters) -> None:
    """Wait for bytes that a block needs now; counts as a stall where they are not there yet."""
    if filling.is_done:
        filling.wait()
        return
    started = time.perf_counter()
    filling.wait()
    counters.stalls += 1
    counters.stall_seconds += time.perf_counter() - started


def written_to(unit: Unit) -> StreamError:
    """What to raise when a forward has changed its streamed weights."""
    return StreamError(
        f"the forward of '{unit.path}' wrote to one of its weights or buffers; they are streamed and read anew for each pass",
        help="keep this module on a device in the device map",
    )


def _is_free(slot: Slot) -> bool:
    return not slot.in_use and (slot.filling is None or slot.filling.is_done)
