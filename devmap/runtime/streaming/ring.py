"""A ring of host slabs that blocks go through on their way to accelerators.

What has to be read, or copied from pages that the device cannot fetch by itself, is brought into a slab
first, part by part where a block is larger than one. Slabs run ahead of the devices' slots: they always hold
the next parts of the recorded order, those of blocks that are on their way before those of blocks to come,
round the end of a pass into the next one. A slab is taken back from a part that was only brought in ahead
when another one is needed at once, so the ring can never be full of guesses.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from devmap.devices.backend import HostSlab
from devmap.devices.host_memory import host_memory
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.storage.chunks import least_part_bytes
from devmap.runtime.storage.homes import DiskHome
from devmap.runtime.streaming.host_budget import ring_shape
from devmap.runtime.streaming.prefetch_order import Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.devices.backend import Backend
    from devmap.runtime.storage.readers import Readers, Reading
    from devmap.runtime.streaming.streamed_block import Unit

__all__ = ["Ring", "Staged", "host_slab", "make_ring"]


@dataclass(eq=False)
class Staged:
    """One slab of the ring."""

    slab: torch.Tensor
    unit: Unit | None = None
    part: int = 0
    reading: Reading | None = None
    taken: bool = False
    """Whether it is on its way to a device now."""

    @property
    def content(self) -> tuple[Unit, int] | None:
        """Which part of which block."""
        return None if self.unit is None else (self.unit, self.part)


class Ring:
    """The slabs, shared by all accelerators."""

    def __init__(self, slabs: Sequence[Staged], units: Sequence[Unit], *, is_pinned: bool) -> None:
        """`units` are the blocks that go through it, of all devices, in the model's order."""
        self.slabs = slabs
        self.is_pinned = is_pinned
        self._units = units
        self._order = Order(len(units))
        self._numbers = {unit: number for number, unit in enumerate(units)}
        self._under_way: list[Unit] = []
        """The blocks that a slot waits for, in the order in which their transfers were asked for."""
        self._taken: dict[Unit, int] = {}
        """How many parts have been taken of each block that has a slot."""
        self._free = threading.Condition()

    @property
    def nbytes(self) -> int:
        """Bytes of all slabs."""
        return sum(each.slab.numel() for each in self.slabs)

    def serves(self, unit: Unit) -> bool:
        """Whether a block goes through the ring."""
        return unit in self._numbers

    def is_near(self, unit: Unit) -> bool:
        """Whether a block is among those that the ring is for now.

        One that is not would push out what is needed before it.
        """
        with self._free:
            idle = sum(not each.taken for each in self.slabs)
            return any(each is unit for each, _ in islice(self._sequence(), max(1, idle)))

    def record(self, unit: Unit) -> None:
        """Note that a block runs now."""
        with self._free:
            self._order.record(self._numbers[unit])

    def begin(self, unit: Unit) -> None:
        """A block has got a slot: its parts are needed now."""
        with self._free:
            self._taken[unit] = 0
            self._under_way.append(unit)
            self._refill()

    def end(self, unit: Unit) -> None:
        """All parts of a block have been taken, or its transfer has failed."""
        with self._free:
            if unit in self._under_way:
                self._under_way.remove(unit)

    def leave(self, unit: Unit) -> None:
        """A block has lost its slot: the next time all its parts are needed again."""
        with self._free:
            self._taken.pop(unit, None)

    def read_ahead(self) -> None:
        """Let free slabs hold what comes next."""
        with self._free:
            self._refill()

    def take(self, unit: Unit, part: int) -> Staged:
        """The slab of a part, being filled.

        Waits for one, and takes it from a part that was only brought in ahead.
        """
        with self._free:
            while True:
                staged = self._slab_for(unit, part)
                if staged is not None:
                    staged.taken = True
                    self._taken[unit] = part + 1
                    self._refill()
                    return staged
                self._free.wait(timeout=0.01 if any(not each.taken for each in self.slabs) else None)

    def release(self, staged: Staged) -> None:
        """Give a slab back whose bytes have arrived on the device, or never will."""
        with self._free:
            staged.unit = staged.reading = None
            staged.taken = False
            self._refill()
            self._free.notify_all()

    def reset(self) -> None:
        """Forget what the slabs hold and which blocks wait for them. Nothing may be under way."""
        with self._free:
            for each in self.slabs:
                if each.reading is not None:
                    each.reading.settle()
                each.unit = each.reading = None
                each.taken = False
            self._under_way.clear()
            self._taken.clear()
            self._free.notify_all()

    def close(self) -> None:
        """Wait until no reader writes into a slab, and drop them."""
        with self._free:
            slabs, self.slabs = self.slabs, ()
        for each in slabs:
            if each.reading is not None:
                each.reading.settle()

    def _slab_for(self, unit: Unit, part: int) -> Staged | None:
        idle = [each for each in self.slabs if not each.taken]
        mine = next((each for each in idle if each.content == (unit, part)), None)
        if mine is not None:
            if (
                mine.reading is not None and mine.reading.has_failed
            ):  # maybe long ago: what was wrong then may be right now
                _start(mine, unit, part)
            return mine
        wanted = {content: turn for turn, content in enumerate(self._wanted())}
        ready = [each for each in idle if each.reading is None or each.reading.is_done]
        staged = max(ready, key=lambda each: _turn(each, wanted), default=None)
        if staged is not None:
            _start(staged, unit, part)
        return staged

    def _refill(self) -> None:
        """Start on the next parts, in slabs that hold nothing or what nobody waits for."""
        wanted = self._wanted()
        idle = [each for each in self.slabs if not each.taken]
        there = {each.content for each in idle}
        missing = [content for content in wanted if content not in there]
        if not missing:
            return
        spare = [
            each
            for each in idle
            if each.content not in wanted and (each.reading is None or each.reading.is_done)
        ]
        for staged, (unit, part) in zip(spare, missing, strict=False):
            _start(staged, unit, part)

    def _wanted(self) -> list[tuple[Unit, int]]:
        """The parts that idle slabs should hold, the most urgent first."""
        return list(islice(self._sequence(), sum(not each.taken for each in self.slabs)))

    def _sequence(self) -> Iterator[tuple[Unit, int]]:
        ahead = [
            self._units[number]
            for number in self._order.upcoming(min(len(self._units), len(self.slabs) + len(self._taken)))
        ]
        for unit in dict.fromkeys([*self._under_way, *ahead]):
            for part in range(self._taken.get(unit, 0), len(unit.home.parts)):
                yield unit, part


def _turn(staged: Staged, wanted: dict[tuple[Unit, int], int]) -> int:
    """How late the content of a slab is needed; empty ones last of all."""
    content = staged.content
    return len(wanted) + 1 if content is None else wanted.get(content, len(wanted))


def _start(staged: Staged, unit: Unit, part: int) -> None:
    staged.unit, staged.part = unit, part
    staged.reading = unit.home.start_part(part, staged.slab)


# The ring of a model: host slabs within the budget, pinned where that helps.


def make_ring(units: Sequence[Unit], budget_bytes: int, readers: Readers) -> Ring | None:
    """A ring for the blocks that execute on accelerators, which are cut to its slabs.

    None where nothing goes through it.

    Blocks on disk always do. Blocks in host memory do where the device can fetch from pinned memory by
    itself: not on unified memory, and not where the system refuses to pin, which is said once.
    """
    on_disk = [unit for unit in units if isinstance(unit.home, DiskHome)]
    backend = backend_for(units[0].device) if units else None
    if backend is None or not (backend.pins or on_disk):
        return None
    through = list(units) if backend.pins else on_disk
    slabs = _slabs(backend, through, _within(budget_bytes, through, backend, readers))
    refusal = next((slab.reason for slab in slabs if not slab.is_pinned), "")
    if refusal and backend.pins:
        warnings.warn(
            f"blocks go to {backend.torch_device} from pageable memory, which is slower: {refusal}",
            stacklevel=2,
        )
        through = on_disk  # nothing is won by copying the others twice
    if not through:
        return None
    for unit in through:
        unit.home = unit.home.cut(slabs[0].tensor.numel())
    return Ring(
        [Staged(slab.tensor) for slab in slabs], through, is_pinned=all(slab.is_pinned for slab in slabs)
    )


def _within(budget_bytes: int, units: Sequence[Unit], backend: Backend, readers: Readers) -> int:
    """What slabs may take: less what readers need where bytes change on their way.

    Of pinned memory no more than half of all there is.
    """
    changes = any(unit.home.recipe.conversions for unit in units if isinstance(unit.home, DiskHome))
    if changes or readers.files.is_direct:
        budget_bytes = max(budget_bytes // 2, budget_bytes - readers.scratch_bytes)
    return min(budget_bytes, host_memory().total_bytes // 2) if backend.pins else budget_bytes


def _slabs(backend: Backend, units: Sequence[Unit], budget_bytes: int) -> list[HostSlab]:
    largest = max(unit.layout.nbytes for unit in units)
    least = max(
        (least_part_bytes(unit.layout) for unit in units if isinstance(unit.home, DiskHome)), default=0
    )
    size, count = ring_shape(largest, budget_bytes, backend.pinned_bytes)
    if size < least:
        size, count = least, max(1, min(count, budget_bytes // max(1, backend.pinned_bytes(least))))
    return [host_slab(backend, size) for _ in range(count)]


def host_slab(backend: Backend, nbytes: int) -> HostSlab:
    """Host memory to copy to a device from.

    A budget for what lives on the CPU does not bind it: `offload.host_memory` does.
    """
    try:
        return backend.pinned_allocate(nbytes)
    except OutOfMemoryError:
        return HostSlab(torch.empty(nbytes, dtype=torch.uint8), is_pinned=backend.pins)
