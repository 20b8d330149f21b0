"""Copies from host memory into the slots of one device.

Made by a thread of its own so that forward need not wait for them.

A block on disk goes through the ring: a reader fills a slab, the copy stream takes it from there. So does a
block in host memory where the ring is pinned: copies from ordinary pages keep a processor busy at a fraction
of the link's rate, and wait for the device. Where it is not (unified memory, a system that refuses to pin),
they are copied from where they lie.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.runtime.storage.homes import HostHome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from devmap.devices.backend import Backend, Event
    from devmap.runtime.storage.chunks import Chunk
    from devmap.runtime.storage.homes import HostSpan
    from devmap.runtime.streaming.counters import Counters
    from devmap.runtime.streaming.ring import Ring, Staged
    from devmap.runtime.streaming.slot import Slot
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["Transfer", "Uploader"]

_REMEMBERED = 256
"""What the uploader has done lately, to say what a forward waited for."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A block on its way into a slot.

    It is done when its last copy is queued: the compute stream waits for it, not the host.
    """

    future: Future[None]

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding on the host."""
        return self.future.done()

    def settle(self) -> None:
        """Block until that is so, whether it went well or not."""
        self.future.exception()

    def wait(self) -> None:
        """Block until that is so; raises what went wrong."""
        self.future.result()


class Uploader:
    """Fills the slots of one device, one after another in the order asked for."""

    def __init__(
        self, backend: Backend, ring: Ring | None, counters: Counters, thread: Executor, *, in_flight: int
    ) -> None:
        """`in_flight` slabs may be copied from at once.

        Those of all devices together must be fewer than the ring has, or none.
        """
        self.stream = backend.stream()
        self._backend = backend
        self._ring = ring
        self._counters = counters
        self._thread = thread
        self._in_flight = in_flight
        self._sent: deque[tuple[Staged, Event]] = deque()
        self._done: deque[tuple[str, float, float]] = deque(maxlen=_REMEMBERED)

    def start(self, block: StreamedBlock, slot: Slot) -> Transfer:
        """Begin to fill a slot."""
        if self._is_staged(block):
            assert self._ring is not None
            self._ring.begin(block)
        transfer = Transfer(self._thread.submit(self._transfer, block, slot))
        self._thread.submit(
            self._let_go
        )  # behind the transfer, so that a forward that waits for it need not wait for this
        return transfer

    def is_near(self, block: StreamedBlock) -> bool:
        """Return whether a block should be brought into a slot now.

        Not one that is needed after what waits in the ring for other devices.
        """
        return self._ring is None or not self._ring.serves(block) or self._ring.is_near(block)

    def record(self, block: StreamedBlock) -> None:
        """Note that a block runs now."""
        if self._ring is not None and self._ring.serves(block):
            self._ring.record(block)

    def leave(self, block: StreamedBlock) -> None:
        """Note that a block has lost its slot."""
        if self._ring is not None:
            self._ring.leave(block)

    def read_ahead(self) -> None:
        """Bring the next blocks into the ring."""
        if self._ring is not None:
            self._ring.read_ahead()

    def causes(self, started: float, ended: float) -> Mapping[str, float]:
        """Return what a wait was for, in seconds.

        `disk`, `host` (copies within host memory), `copy` (to the device).
        """
        found = {"disk": 0.0, "host": 0.0, "copy": 0.0}
        for cause, first, last in tuple(self._done):
            found[cause] += max(0.0, min(ended, last) - max(started, first))
        found["copy"] += max(
            0.0, ended - started - sum(found.values())
        )  # queueing, and what has not come to its end yet
        return found

    def quiesce(self) -> None:
        """Wait until all that was asked for has come to an end, well or not, and all slabs are given back."""
        self._thread.submit(self._let_go).exception()

    def close(self) -> None:
        """Let what is under way end, on the device too, and stop the thread.

        The slots are freed next. The allocator may then hand their bytes to kernels of another stream, which
        copies that are still queued here would overwrite.
        """
        self._thread.shutdown(wait=True)
        self.stream.synchronize()

    def _is_staged(self, block: StreamedBlock) -> bool:
        return self._ring is not None and self._ring.serves(block)

    def _transfer(self, block: StreamedBlock, slot: Slot) -> None:
        with torch.no_grad():
            self._backend.wait(slot.computed, self.stream)
            if self._is_staged(block):
                self._through_ring(block, slot)
            else:
                self._from_its_place(block, slot)
            self._backend.record(slot.copied, self.stream)

    def _from_its_place(self, block: StreamedBlock, slot: Slot) -> None:
        assert isinstance(block.home, HostHome)
        with self._timed("copy"):
            for part in block.home.parts:
                for at, flat in part.pieces:
                    start = part.offset + at
                    self._backend.copy(slot.slab[start : start + flat.numel()], flat, stream=self.stream)

    def _through_ring(self, block: StreamedBlock, slot: Slot) -> None:
        ring = self._ring
        assert ring is not None
        cause = "host" if isinstance(block.home, HostHome) else "disk"
        parts: Sequence[Chunk | HostSpan] = block.home.parts
        try:
            for number, part in enumerate(parts):
                self._let_go(self._in_flight)
                with self._timed(cause):
                    staged = ring.take(block, number)
                try:
                    with self._timed(cause):
                        assert staged.reading is not None
                        staged.reading.wait()
                    with self._timed(
                        "copy"
                    ):  # long where the slab is not pinned: the copy is made at once then
                        self._backend.copy(
                            slot.slab[part.offset : part.offset + part.nbytes],
                            staged.slab[: part.nbytes],
                            stream=self.stream,
                        )
                        sent = self._backend.event()
                        self._backend.record(sent, self.stream)
                except BaseException:
                    ring.release(staged)
                    raise
                self._sent.append((staged, sent))
                self._counters.add(staged=part.nbytes)
        finally:
            ring.end(block)

    def _let_go(self, keep: int = 0) -> None:
        """Give slabs back whose bytes have arrived; wait for those past the newest `keep`."""
        while len(self._sent) > keep:
            staged, sent = self._sent.popleft()
            with self._timed("copy"):
                sent.synchronize()
            assert self._ring is not None
            self._ring.release(staged)

    @contextmanager
    def _timed(self, cause: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._done.append((cause, started, time.perf_counter()))
