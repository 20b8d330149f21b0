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

from devmap.devices.backend import HostSlab
from devmap.devices.cpu import pageable
from devmap.devices.host_memory import host_memory
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.storage.chunks import least_part_bytes
from devmap.runtime.storage.homes import DiskHome
from devmap.runtime.streaming.host_budget import ring_shape
from devmap.runtime.streaming.prefetch_order import Order

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from devmap.devices.backend import Backend
    from devmap.runtime.storage.readers import PendingRead, Readers
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["Ring", "Staged", "host_slab", "make_ring"]


@dataclass(eq=False)
class Staged:
    """One slab of the ring."""

    slab: torch.Tensor
    block: StreamedBlock | None = None
    part: int = 0
    reading: PendingRead | None = None
    taken: bool = False
    """Whether it is on its way to a device now."""

    @property
    def content(self) -> tuple[StreamedBlock, int] | None:
        """Which part of which block."""
        return None if self.block is None else (self.block, self.part)


class Ring:
    """The slabs, shared by all accelerators."""

    def __init__(self, slabs: Sequence[Staged], blocks: Sequence[StreamedBlock], *, is_pinned: bool) -> None:
        """`blocks` are the blocks that go through it, of all devices, in the model's order."""
        self.slabs = slabs
        self.is_pinned = is_pinned
        self._units = blocks
        self._order = Order(len(blocks))
        self._numbers = {block: number for number, block in enumerate(blocks)}
        self._under_way: list[StreamedBlock] = []
        """The blocks that a slot waits for, in the order in which their transfers were asked for."""
        self._taken: dict[StreamedBlock, int] = {}
        """How many parts have been taken of each block that has a slot."""
        self._free = threading.Condition()

    @property
    def nbytes(self) -> int:
        """Bytes of all slabs."""
        return sum(each.slab.numel() for each in self.slabs)

    def serves(self, block: StreamedBlock) -> bool:
        """Return whether a block goes through the ring."""
        return block in self._numbers

    def is_near(self, block: StreamedBlock) -> bool:
        """Return whether a block is among those that the ring is for now.

        One that is not would push out what is needed before it.
        """
        with self._free:
            idle = sum(not each.taken for each in self.slabs)
            return any(each is block for each, _ in islice(self._sequence(), max(1, idle)))

    def record(self, block: StreamedBlock) -> None:
        """Note that a block runs now."""
        with self._free:
            self._order.record(self._numbers[block])

    def begin(self, block: StreamedBlock) -> None:
        """Note that a block has got a slot: its chunks are needed now."""
        with self._free:
            self._taken[block] = 0
            self._under_way.append(block)
            self._refill()

    def end(self, block: StreamedBlock) -> None:
        """Note that all chunks of a block have been taken, or that its transfer has failed."""
        with self._free:
            if block in self._under_way:
                self._under_way.remove(block)

    def leave(self, block: StreamedBlock) -> None:
        """Note that a block has lost its slot: the next time all its chunks are needed again."""
        with self._free:
            self._taken.pop(block, None)

    def read_ahead(self) -> None:
        """Let free slabs hold what comes next."""
        with self._free:
            self._refill()

    def take(self, block: StreamedBlock, part: int) -> Staged:
        """Return the slab of a part, being filled.

        Waits for one, and takes it from a part that was only brought in ahead.
        """
        with self._free:
            while True:
                staged = self._slab_for(block, part)
                if staged is not None:
                    staged.taken = True
                    self._taken[block] = part + 1
                    self._refill()
                    return staged
                self._free.wait(timeout=0.01 if any(not each.taken for each in self.slabs) else None)

    def release(self, staged: Staged) -> None:
        """Give a slab back whose bytes have arrived on the device, or never will."""
        with self._free:
            staged.block = staged.reading = None
            staged.taken = False
            self._refill()
            self._free.notify_all()

    def reset(self) -> None:
        """Forget what the slabs hold and which blocks wait for them. Nothing may be under way."""
        with self._free:
            for each in self.slabs:
                if each.reading is not None:
                    each.reading.settle()
                each.block = each.reading = None
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

    def _slab_for(self, block: StreamedBlock, part: int) -> Staged | None:
        idle = [each for each in self.slabs if not each.taken]
        mine = next((each for each in idle if each.content == (block, part)), None)
        if mine is not None:
            if (
                mine.reading is not None and mine.reading.has_failed
            ):  # maybe long ago: what was wrong then may be right now
                _start(mine, block, part)
            return mine
        wanted = {content: turn for turn, content in enumerate(self._wanted())}
        ready = [each for each in idle if each.reading is None or each.reading.is_done]
        staged = max(ready, key=lambda each: _turn(each, wanted), default=None)
        if staged is not None:
            _start(staged, block, part)
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
        for staged, (block, part) in zip(spare, missing, strict=False):
            _start(staged, block, part)

    def _wanted(self) -> list[tuple[StreamedBlock, int]]:
        """Return the parts that idle slabs should hold, the most urgent first."""
        return list(islice(self._sequence(), sum(not each.taken for each in self.slabs)))

    def _sequence(self) -> Iterator[tuple[StreamedBlock, int]]:
        ahead = [
            self._units[number]
            for number in self._order.upcoming(min(len(self._units), len(self.slabs) + len(self._taken)))
        ]
        for block in dict.fromkeys([*self._under_way, *ahead]):
            for part in range(self._taken.get(block, 0), len(block.home.parts)):
                yield block, part


def _turn(staged: Staged, wanted: dict[tuple[StreamedBlock, int], int]) -> int:
    """Return how late the content of a slab is needed; empty ones last of all."""
    content = staged.content
    return len(wanted) + 1 if content is None else wanted.get(content, len(wanted))


def _start(staged: Staged, block: StreamedBlock, part: int) -> None:
    staged.block, staged.part = block, part
    staged.reading = block.home.start_part(part, staged.slab)


# The ring of a model: host slabs within the budget, pinned where that helps.


def make_ring(blocks: Sequence[StreamedBlock], budget_bytes: int, readers: Readers) -> Ring | None:
    """Return a ring for the blocks that execute on accelerators, which are cut to its slabs.

    None where nothing goes through it.

    Blocks on disk always do. Blocks in host memory do where the device can fetch from pinned memory by
    itself: not on unified memory, and not where the system refuses to pin, which is said once.
    """
    on_disk = [block for block in blocks if isinstance(block.home, DiskHome)]
    backend = backend_for(blocks[0].device) if blocks else None
    if backend is None or not (backend.pins or on_disk):
        return None
    through = list(blocks) if backend.pins else on_disk
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
    for block in through:
        block.home = block.home.cut(slabs[0].tensor.numel())
    return Ring(
        [Staged(slab.tensor) for slab in slabs], through, is_pinned=all(slab.is_pinned for slab in slabs)
    )


def _within(budget_bytes: int, blocks: Sequence[StreamedBlock], backend: Backend, readers: Readers) -> int:
    """Return what slabs may take: less what readers need where bytes change on their way.

    Of pinned memory no more than half of all there is.
    """
    changes = any(block.home.recipe.conversions for block in blocks if isinstance(block.home, DiskHome))
    if changes or readers.files.is_direct:
        budget_bytes = max(budget_bytes // 2, budget_bytes - readers.scratch_bytes)
    return min(budget_bytes, host_memory().total_bytes // 2) if backend.pins else budget_bytes


def _slabs(backend: Backend, blocks: Sequence[StreamedBlock], budget_bytes: int) -> list[HostSlab]:
    largest = max(block.layout.nbytes for block in blocks)
    least = max(
        (least_part_bytes(block.layout) for block in blocks if isinstance(block.home, DiskHome)), default=0
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
        return HostSlab(pageable(nbytes), is_pinned=backend.pins)
