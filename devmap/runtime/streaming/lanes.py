"""Static slots on one executing device: which block is in which, and what comes next.

Two rules make a slot safe without blocking the host: the copy stream waits for "compute done" of the block
before, and the compute stream waits for "copy done" of this one. A slot is filled again as soon as its block
has left, with the next block of the recorded order that is not in a slot yet, round the end of a pass into
the next one; never with a least recently used rule, which misses each time on a cycle.

A third rule holds against what a model does with its weights: a slab that somebody still refers to when its
block has left (a hook that kept a parameter, an output that is a view of one, another thread) is given away,
and the slot gets a new one.
"""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING

import torch

from devmap.errors import OutOfMemoryError, StreamError
from devmap.runtime.streaming.prefetch_order import Order
from devmap.runtime.streaming.slot import Filling, Slot, allocate_slab, new_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.devices.backend import Backend
    from devmap.runtime.streaming.counters import Counters
    from devmap.runtime.streaming.streamed_block import StreamedBlock
    from devmap.runtime.streaming.transfers import Uploader

__all__ = ["Lane", "wait_for", "written_to"]

_KEPT_SLABS = 4
"""Slabs that may be given away at a time: a model that keeps more of its weights should not stream them."""


class Lane:
    """The streamed blocks of one executing device.

    Not safe for two threads at once by itself: callers hold `devmap.runtime.streaming.engine`'s lock while a
    block is in.
    """

    def __init__(
        self,
        backend: Backend,
        blocks: Sequence[StreamedBlock],
        slots: list[Slot],
        counters: Counters,
        *,
        uploader: Uploader | None,
    ) -> None:
        """`uploader` brings blocks in from host memory.

        None on the CPU, where they are read straight into slots.
        """
        self.backend = backend
        self.blocks = blocks
        self.slots = slots
        self._counters = counters
        self._order = Order(len(blocks))
        self._uploader = uploader
        self._given_away: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def bring(self, block: StreamedBlock) -> None:
        """Make a block's bytes ready in a slot and bind its parameters to it.

        Raises:
            StreamError: when a read failed, twice where it was read ahead. The block can be asked for again.
        """
        if self.backend.is_capturing:
            raise StreamError(
                f"the block '{block.path}' is streamed and cannot be captured in a graph: its weights lie "
                f"elsewhere in each pass",
                help="capture modules that stay on a device, or keep this one there in the device map",
            )
        slot = self._slot_of(block)
        if slot is None:
            self._counters.misses += 1
            slot = self._victim(block)
            self._fill(block, slot)
            self._wait(slot)
        else:
            self._counters.hits += 1
            self._wait_or_retry(block, slot)
        self.backend.wait(slot.copied)
        # The block may have run last on another stream of the caller's. Behind its mark, the mark that `free`
        # records stands for both, and the next copy waits for both.
        self.backend.wait(slot.computed)
        slot.in_use = True
        slot.version = slot.writes
        block.prepare(slot)
        slot.holders = self._holders(block, slot)
        block.bind(slot)
        if not self._order.record(block.index):
            self._counters.order_misses += 1
        if self._uploader is not None:
            self._uploader.record(block)
        self.read_ahead()

    def free(self, block: StreamedBlock, *, failed: bool) -> None:
        """Take a block's parameters out of its slot, and fill the slot with what comes next.

        Raises:
            StreamError: when the forward wrote to one of the block's weights, or more of them were kept than
                there is room for.
        """
        slot = block.place
        assert isinstance(slot, Slot)
        block.unbind()
        self.backend.record(slot.computed)
        slot.in_use = False
        was_written = slot.writes != slot.version
        if slot.is_extra:
            block.forget(slot)
        elif self._holders(block, slot) != slot.holders:
            self._give_away(block, slot, failed=failed)
        if was_written:
            self._empty(slot)
            if failed:
                return
            raise written_to(block)
        self.read_ahead()

    def read_ahead(self) -> None:
        """Start to bring the next blocks into free slots, and those after them into host memory."""
        wanted = [self.blocks[index] for index in self._order.upcoming(len(self.slots))]
        for block in wanted:
            if self._slot_of(block) is not None:
                continue
            slot = next((slot for slot in self.slots if _is_free(slot) and slot.block not in wanted), None)
            if slot is None or not (self._uploader is None or self._uploader.is_near(block)):
                break
            self._fill(block, slot)
        if self._uploader is not None:
            self._uploader.read_ahead()

    is_mapped = False
    """Whether its blocks run from the pages of their files; here they are copied."""

    @property
    def nbytes(self) -> int:
        """Bytes of its slots."""
        return sum(slot.slab.numel() for slot in self.slots)

    def trim(self) -> None:
        """Slots are made once and stay."""

    def quiesce(self) -> None:
        """Wait until nothing is under way into a slot, whether this lane knows of it or not."""
        if self._uploader is not None:
            self._uploader.quiesce()

    def reset(self) -> None:
        """Take every block out and empty every slot. Nothing may be under way, and no block in."""
        for slot in self.slots:
            if slot.filling is not None:
                slot.filling.settle()
            self._empty(slot)
            slot.in_use = False
            self.backend.record(slot.computed)
        for block in self.blocks:
            block.depth = 0
            block.unbind()
            block.forget_all()  # with the tensors over slots that were made for one call

    def close(self) -> None:
        """Let what is under way end, and drop the slots."""
        for slot in self.slots:
            if slot.filling is not None:
                slot.filling.settle()
        if self._uploader is not None:
            self._uploader.close()
        for block in self.blocks:
            block.forget_all()
        self.slots.clear()

    def _slot_of(self, block: StreamedBlock) -> Slot | None:
        return next((slot for slot in self.slots if slot.block is block), None)

    def _victim(self, block: StreamedBlock) -> Slot:
        """Return the slot whose block is needed last.

        One more where a block calls another and all slots are in use.
        """
        idle = [slot for slot in self.slots if not slot.in_use]
        if not idle:
            extra = new_slot(self.backend, block.layout.nbytes)
            extra.is_extra = True
            return extra
        upcoming = [self.blocks[index] for index in self._order.upcoming(len(self.slots))]
        slot = max(
            idle, key=lambda each: upcoming.index(each.block) if each.block in upcoming else len(upcoming)
        )
        if slot.filling is not None:
            slot.filling.settle()
        return slot

    def _fill(self, block: StreamedBlock, slot: Slot) -> None:
        self._empty(slot)
        slot.block = block
        self.backend.discard(slot.slab)
        self._counters.add(streamed=block.layout.nbytes)
        slot.filling = block.start(slot.slab) if self._uploader is None else self._uploader.start(block, slot)

    def _empty(self, slot: Slot) -> None:
        if slot.block is not None and self._uploader is not None:
            self._uploader.leave(slot.block)
        slot.block = slot.filling = None

    def _wait(self, slot: Slot) -> None:
        assert slot.filling is not None
        try:
            wait_for(slot.filling, self._counters, None if self._uploader is None else self._uploader.causes)
        except BaseException:
            slot.filling.settle()
            self._empty(slot)
            raise

    def _wait_or_retry(self, block: StreamedBlock, slot: Slot) -> None:
        try:
            self._wait(slot)
        except StreamError:  # it was read ahead, maybe long ago: what was wrong then may be right now
            self._fill(block, slot)
            self._wait(slot)

    def _holders(self, block: StreamedBlock, slot: Slot) -> tuple[int, int]:
        storage = self.backend.storage(slot.slab)
        # Torch's own count of what shares bytes.
        return torch._C._storage_Use_Count(storage._cdata), block.holders(slot)  # noqa: SLF001

    def _give_away(self, block: StreamedBlock, slot: Slot, *, failed: bool) -> None:
        """Leave a slab to those who kept something of it, and put a new one in its place."""
        self._counters.given_away += 1
        self._given_away.add(self.backend.storage(slot.slab))
        if (
            len(self._given_away) > _KEPT_SLABS and not failed
        ):  # an error on its way keeps what its frames saw
            raise StreamError(
                f"weights of '{block.path}' and of other blocks are kept beyond their forward, "
                f"{len(self._given_away)} slots of them",
                help="copy what you keep (tensor.clone()), or keep these modules on a device in the "
                "device map",
            )
        self._empty(slot)
        for each in self.blocks:
            each.forget(slot)
        try:
            slot.slab = allocate_slab(self.backend, slot.slab.numel())
            self.backend.record(slot.computed)
        except OutOfMemoryError as error:
            self.slots.remove(slot)
            if self.slots:
                return
            self.slots.append(slot)
            raise StreamError(
                f"a weight of '{block.path}' is kept beyond its forward, and {error.device} has no room "
                f"for another slot",
                help="copy what you keep (tensor.clone()), or keep this module on a device in the device map",
            ) from error


def wait_for(
    filling: Filling, counters: Counters, causes: Callable[[float, float], Mapping[str, float]] | None = None
) -> None:
    """Wait for bytes that a block needs now.

    Counts as a stall where they are not there yet, of the disk unless `causes` says more.
    """
    if filling.is_done:
        filling.wait()
        return
    started = time.perf_counter()
    try:
        filling.wait()
    finally:
        ended = time.perf_counter()
        counters.stall(
            ended - started, {"disk": ended - started} if causes is None else causes(started, ended)
        )


def written_to(block: StreamedBlock) -> StreamError:
    """Return what to raise when a forward has changed its streamed weights."""
    return StreamError(
        f"the forward of '{block.path}' wrote to one of its weights or buffers; they are streamed and read "
        f"anew for each pass",
        help="keep this module on a device in the device map",
    )


def _is_free(slot: Slot) -> bool:
    return not slot.in_use and (slot.filling is None or slot.filling.is_done)
