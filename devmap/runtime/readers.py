"""Threads that fill slabs of host memory from files."""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import torch

from devmap.runtime.files import Files, memory_of
from devmap.runtime.requests import GAP_BYTES, REQUEST_BYTES, Conversion, Recipe, Request
from devmap.runtime.weights import flat_bytes, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from devmap.inventory.checkpoint import StoredTensor
    from devmap.inventory.mapping import Box
    from devmap.runtime.files import Pages

__all__ = ["Readers", "Reading"]

_THREADS = 4
"""Enough to keep a fast disk busy; more compete with the kernels for cores."""

_nowhere = bytearray(GAP_BYTES)
"""Where gaps between tensors are read to; nobody looks at it, so threads may share it."""


class Reading:
    """A slab that is being filled."""

    def __init__(self, parts: list[Future[None]]) -> None:
        self._parts = parts

    @property
    def is_done(self) -> bool:
        """Whether nothing is outstanding."""
        return all(part.done() for part in self._parts)

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

    def __init__(self, *, threads: int = _THREADS, scratch_bytes: int = REQUEST_BYTES) -> None:
        self.files = Files()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="devmap-reader")
        self._scratch_bytes = scratch_bytes

    def start(self, recipe: Recipe, slab: torch.Tensor) -> Reading:
        """Fill a slab in the background. The slab must not be touched, nor go away, until the reading is waited for."""
        memory = memory_of(slab)
        tasks: list[Callable[[], None]] = [_Task(self._request, request, memory) for request in recipe.requests]
        tasks += [_Task(self._convert, conversion, slab) for conversion in recipe.conversions]
        return Reading([self._pool.submit(task) for task in tasks])

    def populate(self, recipe: Recipe, pages: Mapping[Path, Pages], *, again: bool, after: Reading | None) -> Reading:
        """Bring pages in, in the background; not before `after` is done, so that no more is held than meant.

        `again` says that they were in before, and may still be.
        """

        def bring(request: Request) -> None:
            if after is not None:
                after.settle()  # it was submitted earlier, so some thread is at it
            pages[request.path].bring(request.offset, request.nbytes, again=again)

        return Reading([self._pool.submit(bring, request) for request in recipe.requests])

    def release(self, recipe: Recipe, pages: Mapping[Path, Pages]) -> Reading:
        """Let go of pages in the background."""
        return Reading([self._pool.submit(_release, recipe, pages)])

    def close(self) -> None:
        """End the threads and close the files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.files.close()

    def _request(self, request: Request, memory: memoryview) -> None:
        parts = [memoryview(_nowhere)[:nbytes] if at is None else memory[at : at + nbytes] for at, nbytes in request.parts]
        self.files.read_into(request.path, request.offset, parts)

    def _convert(self, conversion: Conversion, slab: torch.Tensor) -> None:
        """Read a stored tensor by rows into scratch memory and put it, changed, where it belongs."""
        stored, piece, target = conversion.stored, conversion.piece, conversion.target
        weight = target.weight
        whole = slab[target.offset : target.offset + weight.nbytes].view(weight.dtype).view(weight.shape)
        goal = whole if piece.put is None else whole[_slices(piece.put)]
        take: Box = piece.take if piece.take is not None else tuple((0, size) for size in stored.shape)
        if not stored.shape:
            goal.copy_(self._rows(stored, 0, 1).view(()).reshape(goal.shape))
            return
        start, end = take[0]
        by_rows = piece.permute is None and goal.dim() > 0 and goal.shape[0] == end - start
        row_bytes = max(1, stored.nbytes // max(1, stored.shape[0]))
        step = max(1, self._scratch_bytes // row_bytes) if by_rows else max(1, end - start)
        for row in range(start, end, step):
            last = min(row + step, end)
            part = self._rows(stored, row, last)[(slice(None), *_slices(take[1:]))]
            if piece.permute is not None:
                part = part.permute(piece.permute)
            into = goal[row - start : last - start] if by_rows else goal
            into.copy_(part.reshape(into.shape))

    def _rows(self, stored: StoredTensor, start: int, end: int) -> torch.Tensor:
        dtype = torch_dtype(stored.dtype)
        assert dtype is not None
        inner = stored.shape[1:]
        row_bytes = math.prod(inner) * dtype.itemsize
        rows = torch.empty((end - start, *inner), dtype=dtype)
        self.files.read_into(stored.file, stored.offset + start * row_bytes, [memory_of(flat_bytes(rows))])
        return rows


class _Task:
    """A call with its arguments, without gradients: futures carry no mode of the calling thread."""

    def __init__(self, call: Callable[..., None], *arguments: object) -> None:
        self._call = call
        self._arguments = arguments

    def __call__(self) -> None:
        with torch.no_grad():
            self._call(*self._arguments)


def _release(recipe: Recipe, pages: Mapping[Path, Pages]) -> None:
    for request in recipe.requests:
        pages[request.path].release(request.offset, request.nbytes)


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, end) for start, end in box)
