"""Reads past the system's page cache (`O_DIRECT`), for models that would only push everything else out of it.

The kernel wants whole aligned blocks at aligned addresses, which the tensors of a safetensors file are not. So the
blocks around them go through an aligned buffer of the reading thread, whose bytes are then scattered: as many copies as a
buffered read makes, none of them in the cache.

Source: open(2) of the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DIRECT", "DirectReader"]

DIRECT: int = getattr(os, "O_DIRECT", 0)
"""The flag to open with; 0 where the system has none."""
_BLOCK = 4096
"""Offsets, sizes and addresses are multiples of this: what every file system that takes the flag is content with."""


class DirectReader:
    """Reads with a buffer for each thread that uses it."""

    def __init__(self, buffer_bytes: int) -> None:
        """`buffer_bytes` of each thread, rounded up to whole blocks."""
        self._buffer_bytes = max(1, -(-buffer_bytes // _BLOCK)) * _BLOCK
        self._threads = threading.local()

    def read_into(self, descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        """As `os.preadv`: fill `parts` from `offset` on; how many bytes there were. Less than asked only at the end of the file.

        Raises:
            OSError: with `EINVAL` where the file system takes no direct reads.
        """
        buffer = self._buffer()
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        position = offset
        for part in parts:
            target, filled = ctypes.addressof(ctypes.c_char.from_buffer(part)) if len(part) else 0, 0
            while filled < len(part):
                start = position // _BLOCK * _BLOCK
                kept = self._threads.kept  # what the buffer holds: offset and bytes
                if not kept[0] <= position < kept[0] + kept[1]:
                    wanted = offset + sum(map(len, parts)) - start
                    got = os.preadv(descriptor, [memoryview(buffer)[: min(self._buffer_bytes, -(-wanted // _BLOCK) * _BLOCK)]], start)
                    kept = self._threads.kept = (start, got)
                    if position >= start + got:
                        return position - offset
                size = min(len(part) - filled, kept[0] + kept[1] - position)
                ctypes.memmove(target + filled, address + position - kept[0], size)
                filled, position = filled + size, position + size
        return position - offset

    def _buffer(self) -> mmap.mmap:
        buffer: mmap.mmap | None = getattr(self._threads, "buffer", None)
        if buffer is None:
            buffer = self._threads.buffer = mmap.mmap(-1, self._buffer_bytes)
        self._threads.kept = (0, 0)
        return buffer
