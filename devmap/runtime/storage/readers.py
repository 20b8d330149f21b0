"""Threads that fill slabs of host memory from files."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import Future, wait
from itertools import product
from typing import TYPE_CHECKING

import torch

from devmap.devices.cpu import pageable
from devmap.errors import DevmapError, StreamError
from devmap.runtime.storage.files import Files, memory_of
from devmap.runtime.storage.read_requests import (
    GAP_BYTES,
    REQUEST_BYTES,
    Recipe,
    Request,
    TensorConversion,
    sides_of,
)
from devmap.runtime.storage.threads import started_pool
from devmap.runtime.storage.weights import flat_bytes, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from devmap.inventory.stored.checkpoint import StoredTensor
    from devmap.inventory.stored.mapping import Box
    from devmap.runtime.storage.files import Pages

__all__ = ["PendingRead", "Readers"]

_THREADS = 4
"""Enough to keep a fast disk busy; more compete with the kernels for cores."""

_nowhere = bytearray(GAP_BYTES)
"""Where gaps between tensors are read to; nobody looks at it, so threads may share it."""


class PendingRead:
    """A slab that is being filled."""

    def __init__(self, parts: list[Future[None]]) -> None:
        self._parts = parts

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding."""
        return all(part.done() for part in self._parts)

    @property
    def has_failed(self) -> bool:
        """Whether nothing is outstanding, and something went wrong."""
        return self.is_done and any(part.exception() is not None for part in self._parts)

    def settle(self) -> None:
        """Block until nothing is outstanding, whether it went well or not."""
        wait(self._parts)

    def wait(self) -> None:
        """Block until the slab is full.

        Raises:
            StreamError: where a read failed; no read is outstanding then.
        """
        self.settle()
        for part in self._parts:
            part.result()


class Readers:
    """A few threads over the open files of one model."""

    def __init__(
        self, *, threads: int = _THREADS, scratch_bytes: int = REQUEST_BYTES, direct: bool | None = None
    ) -> None:
        """`scratch_bytes` of each thread, where bytes change on their way.

        `direct` reads past the page cache.

        Left out, `direct` is what the environment says: `DEVMAP_DIRECT_READS=1`.
        """
        if direct is None:
            direct = os.environ.get("DEVMAP_DIRECT_READS", "") not in {"", "0"}
        self.files = Files(direct=direct, buffer_bytes=scratch_bytes)
        self._pool = started_pool(threads, "devmap-reader")
        self._threads = threads
        self._scratch_bytes = scratch_bytes

    @property
    def scratch_bytes(self) -> int:
        """Of all threads together."""
        return self._threads * self._scratch_bytes

    def start(self, recipe: Recipe, slab: torch.Tensor, *, forget: bool = False) -> PendingRead:
        """Fill a slab in the background. The slab must not be touched until the reading is waited for.

        `forget` lets the system's cache drop the bytes behind the reading.
        """
        tasks: list[Callable[[], None]] = [
            _Task(self._request, request, slab, forget) for request in recipe.requests
        ]
        tasks += [_Task(self._convert, conversion, slab) for conversion in recipe.conversions]
        return PendingRead([self._pool.submit(task) for task in tasks])

    def copy(self, pieces: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> PendingRead:
        """Copy within host memory in the background: pairs of where to and where from, the same size each."""
        return PendingRead([self._pool.submit(_Task(_copy, target, source)) for target, source in pieces])

    def populate(
        self, recipe: Recipe, pages: Mapping[Path, Pages], *, again: bool, after: PendingRead | None
    ) -> PendingRead:
        """Bring pages in, in the background; not before `after` is done, so that no more is held than meant.

        `again` says that they were in before, and may still be.
        """

        def bring(request: Request) -> None:
            if after is not None:
                after.settle()  # it was submitted earlier, so some thread is at it
            pages[request.path].bring(request.offset, request.nbytes, again=again)
            self.files.count(request.nbytes)

        return PendingRead([self._pool.submit(bring, request) for request in recipe.requests])

    def release(self, recipe: Recipe, pages: Mapping[Path, Pages], *, forget: bool = False) -> PendingRead:
        """Let go of pages in the background; of the system's cache too where it is to `forget` them."""
        return PendingRead([self._pool.submit(_release, recipe, pages, forget)])

    def quiesce(self) -> None:
        """Wait until everything that was asked for so far is done, also what nobody waits for.

        Every thread comes to one meeting, and so has ended what it was at; what was asked for earlier has
        been begun earlier.
        """
        meeting = threading.Barrier(self._threads)
        try:
            wait([self._pool.submit(meeting.wait) for _ in range(self._threads)])
        except BaseException:
            meeting.abort()  # an interrupt: no thread may wait for others that will never be asked
            raise

    def close(self) -> None:
        """End the threads and close the files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.files.close()

    def _request(self, request: Request, slab: torch.Tensor, forget: bool) -> None:
        memory = memory_of(slab)  # made here, so that the task keeps the slab alive and not only its address
        parts = [
            memoryview(_nowhere)[:nbytes] if at is None else memory[at : at + nbytes]
            for at, nbytes in request.parts
        ]
        self.files.read_into(request.path, request.offset, parts, forget=forget)

    def _convert(self, conversion: TensorConversion, slab: torch.Tensor) -> None:
        """Read a stored tensor by rows into scratch memory and put it, changed, where it belongs."""
        stored, piece, target = conversion.stored, conversion.piece, conversion.target
        weight = target.weight
        goal = slab[target.offset : target.offset + weight.nbytes].view(weight.dtype).view(weight.shape)
        goal = goal if piece.put is None else goal[_slices(piece.put)]
        take: Box = piece.take if piece.take is not None else tuple((0, size) for size in stored.shape)
        sides = sides_of(weight, stored, piece)
        if sides is None or not stored.shape:
            part = self._rows(stored, (), 0, stored.shape[0] if stored.shape else 1).reshape(stored.shape)[
                _slices(take)
            ]
            goal.copy_((part if piece.permute is None else part.permute(piece.permute)).reshape(goal.shape))
            return
        goal = _along_the_stored(goal, sides, take)
        for lead, first, last in self._runs(stored, take):
            depth = len(lead)
            part = self._rows(stored, lead, first, last)[(slice(None), *_slices(take[depth + 1 :]))]
            index = tuple(at - begin for at, (begin, _) in zip(lead, take, strict=False))
            rows: tuple[int | slice, ...] = (*index, slice(first - take[depth][0], last - take[depth][0]))
            goal[rows].copy_(part)

    def _runs(self, stored: StoredTensor, take: Box) -> Iterator[tuple[tuple[int, ...], int, int]]:
        """Rows of a stored tensor that scratch memory has room for.

        The indices before them, the first, and one past the last.

        Rows of the outermost dimension, unless one of them is too large already; then of the next one, and so
        on.
        """
        depth, row_bytes = 0, stored.nbytes // max(1, stored.shape[0])
        while row_bytes > self._scratch_bytes and depth + 1 < len(stored.shape):
            depth += 1
            row_bytes //= max(1, stored.shape[depth])
        step = max(1, self._scratch_bytes // max(1, row_bytes))
        start, end = take[depth]
        for lead in product(*(range(first, last) for first, last in take[:depth])):
            for row in range(start, end, step):
                yield lead, row, min(row + step, end)

    def _rows(self, stored: StoredTensor, lead: tuple[int, ...], start: int, end: int) -> torch.Tensor:
        """Rows `start` to `end` of what `lead` selects, in memory of their own."""
        dtype = torch_dtype(stored.dtype)
        assert dtype is not None
        inner = stored.shape[len(lead) + 1 :]
        row_bytes = math.prod(inner) * dtype.itemsize
        before = 0
        for index, size in zip(lead, stored.shape, strict=False):
            before = before * size + index
        before = before * (stored.shape[len(lead)] if stored.shape else 1) + start
        rows = pageable((end - start) * row_bytes).view(dtype).view(end - start, *inner)
        self.files.read_into(stored.file, stored.offset + before * row_bytes, [memory_of(flat_bytes(rows))])
        return rows


class _Task:
    """A call with its arguments, once, without gradients: futures carry no mode of the calling thread.

    It lets its arguments go before its future is done, so that whoever counts what refers to a slab then
    counts no reader.
    """

    def __init__(self, call: Callable[..., None], *arguments: object) -> None:
        self._call = call
        self._arguments = arguments

    def __call__(self) -> None:
        arguments, self._arguments = self._arguments, ()
        try:
            with torch.no_grad():
                self._call(*arguments)
        except MemoryError as error:
            if isinstance(error, DevmapError):
                raise
            raise StreamError(
                "host memory ran out while weights were read",
                help="lower offload.host_memory, or free memory on this machine",
            ) from error


def _copy(target: torch.Tensor, source: torch.Tensor) -> None:
    target.copy_(source)


def _release(recipe: Recipe, pages: Mapping[Path, Pages], forget: bool) -> None:
    for request in recipe.requests:
        pages[request.path].release(request.offset, request.nbytes, forget=forget)


def _along_the_stored(goal: torch.Tensor, sides: Sequence[tuple[int, int]], take: Box) -> torch.Tensor:
    """Return a view of the goal whose dimensions are those of the stored tensor."""
    turned = goal.squeeze().permute(
        [place for place, _ in sorted(enumerate(there for _, there in sides), key=lambda each: each[1])]
    )
    return turned.view([last - first for first, last in take])


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)
