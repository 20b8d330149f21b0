"""Blocks on disk that execute on the CPU: run from the mapped file, with its pages brought in ahead of use.

No byte is copied: the kernels read the system's page cache, and a block's parameters are views of it for
ever. Threads bring the pages of the next blocks in, in the recorded order; windows past what host memory
allows are let go of, the one that is needed last first. Against a ring of slots this saves a copy of all
weights in each pass, which on a machine of few cores is the kernels' own time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU
from devmap.devices.registry import backend_for
from devmap.errors import StreamError
from devmap.runtime.storage.homes import DiskHome
from devmap.runtime.storage.read_requests import Recipe, recipe_of
from devmap.runtime.streaming.lanes import wait_for, written_to
from devmap.runtime.streaming.prefetch_order import Order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from devmap.runtime.storage.files import Pages
    from devmap.runtime.storage.readers import PendingRead, Readers
    from devmap.runtime.storage.weights import SlabLayout
    from devmap.runtime.streaming.counters import Counters
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["MappedLane"]

_AHEAD = 4
"""Blocks that are brought in before they run."""
_REQUEST_BYTES = 32 << 20
"""Pages that one thread brings in at a time; nothing is copied, so a request is cheap to the last byte."""


@dataclass(eq=False)
class _MappedRange:
    """The mapped bytes of one block."""

    recipe: Recipe
    pages: Mapping[Path, Pages]
    """The maps of its files."""
    tensors: Mapping[str, torch.Tensor]
    """As they lie in the files."""
    forgets: bool = False
    """Whether the system's cache is to drop its pages too when they are let go of."""
    filling: PendingRead | None = None
    """Its pages are on the way, or came since it last ran."""
    is_held: bool = False
    """Whether pages of it may count as this process's memory."""
    version: int = 0
    """`writes` when its block came in."""

    def views(self, layout: SlabLayout) -> Mapping[str, torch.Tensor]:
        """Return the block's tensors."""
        return layout.assembled(dict(self.tensors))

    @property
    def writes(self) -> int:
        """Torch's count of writes to any of them."""
        # Torch's counter of writes.
        return sum(tensor._version for tensor in self.tensors.values())  # noqa: SLF001


class MappedLane:
    """The streamed blocks that execute on the CPU, where their stored bytes are the running ones.

    Not safe for two threads at once by itself: callers hold `devmap.runtime.streaming.engine`'s lock while a
    block is in.
    """

    def __init__(
        self, blocks: Sequence[StreamedBlock], readers: Readers, counters: Counters, *, most: int
    ) -> None:
        """`most` is how many blocks may be held at once."""
        self.backend = backend_for(CPU)
        self._units = blocks
        self._readers = readers
        self._counters = counters
        self._most = most
        self._order = Order(len(blocks))
        self._windows: dict[StreamedBlock, _MappedRange] = {}

    is_mapped = True
    """Whether its blocks run from the pages of their files."""

    @property
    def nbytes(self) -> int:
        """What its windows take at most, unless blocks call each other."""
        return self._most * max(block.layout.nbytes for block in self._units)

    def bring(self, block: StreamedBlock) -> None:
        """Make a block's pages ready and bind its parameters to them.

        Raises:
            StreamError: when a read failed twice. The block can be asked for again.
        """
        window = self._windows.get(block)
        if window is None or window.filling is None:
            self._counters.misses += 1
        else:
            self._counters.hits += 1
        try:
            self._wait(
                block, window if window is not None and window.filling is not None else self._open(block)
            )
        except (
            StreamError
        ):  # it was mapped or read ahead, maybe long ago: what was wrong then may be right now
            self._wait(block, self._open(block))
        window = self._windows[block]
        window.version = window.writes
        block.bind(window)
        if not self._order.record(block.index):
            self._counters.order_misses += 1
        self.read_ahead()

    def free(self, block: StreamedBlock, *, failed: bool) -> None:
        """Take a block's parameters out of the module, and bring in what comes next.

        Raises:
            StreamError: when the forward wrote to one of the block's weights.
        """
        block.unbind()
        window = self._windows[block]
        window.filling = None
        if window.writes != window.version:
            self._release(window).wait()
            self._drop(block)  # what was written stays on pages that are shared with a neighbour
            if not failed:
                raise written_to(block)
        self.read_ahead()

    def read_ahead(self) -> None:
        """Start to bring in the pages of the next blocks, as far as there is room for them."""
        for index in self._order.upcoming(min(_AHEAD, self._most)):
            block = self._units[index]
            window = self._windows.get(block)
            if (window is None or window.filling is None) and block.place is None:
                try:
                    if not self._open_ahead(block):
                        break
                except StreamError:  # the block says so itself when it is called
                    break

    def trim(self) -> None:
        """Let go of every block that does not run."""
        for block, window in self._windows.items():
            if block.place is None:
                if window.filling is not None:
                    window.filling.settle()
                self._release(window).wait()

    def quiesce(self) -> None:
        """Wait until the readers have done all that is under way."""

    def reset(self) -> None:
        """Take every block out and let go of its pages. Nothing may be under way, and no block in."""
        for block in self._units:
            block.depth = 0
            block.unbind()
        for window in self._windows.values():
            self._release(window).wait()

    def close(self) -> None:
        """Let what is under way end, and drop the windows."""
        for window in self._windows.values():
            if window.filling is not None:
                window.filling.settle()
        for block in self._units:
            block.forget_all()
        self._windows.clear()

    def _open_ahead(self, block: StreamedBlock) -> bool:
        held = [each for each, window in self._windows.items() if window.is_held]
        if block in held or len(held) < self._most:
            self._open(block)
            return True
        return self._make_room(held, block)

    def _make_room(self, held: Sequence[StreamedBlock], block: StreamedBlock) -> bool:
        """Open a block in the place of the one that is needed last.

        False where all others run or are needed sooner.
        """
        turns = self._turns()
        victim = max((each for each in held if each.place is None), key=turns, default=None)
        if victim is None or turns(victim) <= turns(block):
            return False
        self._open(block, after=self._release(self._windows[victim]))
        return True

    def _turns(self) -> Callable[[StreamedBlock], int]:
        """Return how soon a block is needed, by the recorded order."""
        turns = {index: turn for turn, index in enumerate(self._order.upcoming(len(self._units)))}
        return lambda block: turns.get(block.index, len(turns))

    def _open(self, block: StreamedBlock, *, after: PendingRead | None = None) -> _MappedRange:
        window = self._windows.get(block)
        if window is None:
            window = self._windows[block] = self._window_of(block)
        if after is None and not window.is_held:
            held = [each for each, other in self._windows.items() if other.is_held]
            idle = [each for each in held if each.place is None]
            if idle and len(held) >= self._most:
                after = self._release(self._windows[max(idle, key=self._turns())])
        window.filling = self._readers.populate(
            window.recipe, window.pages, again=window.is_held, after=after
        )
        window.is_held = True
        self._counters.add(streamed=block.layout.nbytes)
        return window

    def _window_of(self, block: StreamedBlock) -> _MappedRange:
        recipe = recipe_of(block.layout, request_bytes=_REQUEST_BYTES)
        pages = {each.path: self._readers.files.pages(each.path, streamed=True) for each in recipe.requests}
        for each in recipe.requests:
            try:
                pages[each.path].require(each.offset + each.nbytes)
            except StreamError:
                self._readers.files.forget_pages(each.path, pages[each.path])
                raise
        tensors = {}
        for target in block.layout.fields:
            weight, (stored, _) = target.weight, target.weight.stored[0]
            flat = pages[stored.file].memory[stored.offset : stored.offset + weight.nbytes]
            tensors[weight.name] = flat.view(weight.dtype).view(weight.shape)
        assert isinstance(block.home, DiskHome)
        return _MappedRange(recipe, pages, tensors, forgets=block.home.forgets)

    def _release(self, window: _MappedRange) -> PendingRead:
        if window.filling is not None:
            window.filling.settle()
        window.is_held, window.filling = False, None
        return self._readers.release(window.recipe, window.pages, forget=window.forgets)

    def _wait(self, block: StreamedBlock, window: _MappedRange) -> None:
        assert window.filling is not None
        try:
            wait_for(window.filling, self._counters)
            for request in window.recipe.requests:
                window.pages[request.path].require(request.offset + request.nbytes)
        except BaseException:
            window.filling.settle()
            self._drop(block)  # the file may be another one by the next time
            raise

    def _drop(self, block: StreamedBlock) -> None:
        """Forget a block's window, and map its files anew the next time."""
        window = self._windows.pop(block)
        block.forget(window)
        for path, pages in window.pages.items():
            self._readers.files.forget_pages(path, pages)
