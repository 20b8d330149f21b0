"""Reads past the system's page cache (`O_DIRECT`), for models that would only push everything else out of it.

The kernel wants whole aligned blocks at aligned addresses, which the tensors of a safetensors file are not.
So the blocks around them go through an aligned buffer of the reading thread, whose bytes are then scattered:
as many copies as a buffered read makes, none of them in the cache.

Source: open(2) of the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DIRECT", "DirectReader", "are_present", "can_populate", "forget_cached", "populate", "release"]


DIRECT: int = getattr(os, "O_DIRECT", 0)
"""The flag to open with; 0 where the system has none."""
_BLOCK = 4096
"""Offsets, sizes and addresses are multiples of this: what every file system that takes the flag is content
with."""


class DirectReader:
    """Reads with a buffer for each thread that uses it."""

    def __init__(self, buffer_bytes: int) -> None:
        """`buffer_bytes` of each thread, rounded up to whole blocks."""
        self._buffer_bytes = max(1, -(-buffer_bytes // _BLOCK)) * _BLOCK
        self._threads = threading.local()

    def read_into(self, descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        """Fill `parts` from `offset` on, as `os.preadv` does, and return how many bytes there were.

        Less than asked only at the end of the file.

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
                    got = os.preadv(
                        descriptor,
                        [memoryview(buffer)[: min(self._buffer_bytes, -(-wanted // _BLOCK) * _BLOCK)]],
                        start,
                    )
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


# Pages of mapped files: brought in ahead of use, and let go of afterwards.
#
# A kernel that reads a mapped page which is not there stops until the disk has it, with one small request in
# flight. So pages are brought in beforehand, by threads, in large parts (`MADV_POPULATE_READ`, Linux 5.14):
# cached ones cost no copy, the others come at the disk's rate, and a file that is too short or cannot be read
# is an error here instead of a signal there.
#
# Source: madvise(2) and posix_fadvise(2) of the Linux manual pages.


_POPULATE_READ = 22
_DONT_NEED = 4
_READ_AHEAD = 1 << 20
"""The kernel takes no more of one call than the device's largest request, which is seldom less than this."""


@cache
def _library() -> ctypes.CDLL | None:
    """Return the C library, whose functions are called without the interpreter's lock.

    Unlike `mmap.mmap.madvise`.
    """
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    return library


@cache
def can_populate() -> bool:
    """Return whether this system can bring pages of a mapped file in on demand."""
    library = _library()
    if library is None:
        return False
    page = mmap.mmap(-1, mmap.PAGESIZE)
    return bool(
        library.madvise(ctypes.addressof(ctypes.c_char.from_buffer(page)), mmap.PAGESIZE, _POPULATE_READ) == 0
    )


def are_present(address: int, nbytes: int) -> bool:
    """Return whether all pages are in memory.

    For mapped pages fifty times cheaper than to bring them in once more.

    Only for files that this process may write to or owns: of others the kernel says that all is there.
    """
    library = _library()
    assert library is not None
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    found = ctypes.create_string_buffer(-(-(address + nbytes - first) // mmap.PAGESIZE))
    return (
        library.mincore(first, address + nbytes - first, found) == 0
        and b"\0" not in memoryview(found).tobytes()
    )


def populate(descriptor: int, offset: int, address: int, nbytes: int) -> None:
    """Bring the pages of `nbytes` at `address` in, which map the file from `offset` on.

    Raises:
        OSError: when the file is shorter, or cannot be read.
    """
    for start in range(offset, offset + nbytes, _READ_AHEAD):
        if not _is_cached(descriptor, start):
            os.posix_fadvise(
                descriptor, start, min(_READ_AHEAD, offset + nbytes - start), os.POSIX_FADV_WILLNEED
            )
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    _call(first, address + nbytes - first, _POPULATE_READ)


def _is_cached(descriptor: int, offset: int) -> bool:
    """Return whether one byte is in the system's cache; False where the file system does not tell."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def forget_cached(descriptor: int, offset: int, nbytes: int) -> None:
    """Let the system's cache drop a stretch of a file: its whole pages, as far as nobody maps them.

    Does nothing on other systems.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, nbytes, os.POSIX_FADV_DONTNEED)


def release(address: int, nbytes: int) -> None:
    """Let go of the whole pages inside.

    What was written to them is lost, what the file has stays in the system's cache.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    last = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        _call(first, last - first, _DONT_NEED)


def _call(address: int, nbytes: int, advice: int) -> None:
    library = _library()
    assert library is not None
    while library.madvise(address, nbytes, advice) != 0:
        code = ctypes.get_errno()
        if code not in {errno.EINTR, errno.EAGAIN}:
            raise OSError(code, os.strerror(code))
