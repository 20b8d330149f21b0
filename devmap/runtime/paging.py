"""Pages of mapped files: brought in ahead of use, and let go of afterwards.

A kernel that reads a mapped page which is not there stops until the disk has it, with one small request in flight. So pages
are brought in beforehand, by threads, in large parts (`MADV_POPULATE_READ`, Linux 5.14): cached ones cost no copy, the
others come at the disk's rate, and a file that is too short or cannot be read is an error here instead of a signal there.

Source: madvise(2) and posix_fadvise(2) of the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from functools import cache

__all__ = ["are_present", "can_populate", "forget_cached", "populate", "release"]

_POPULATE_READ = 22
_DONT_NEED = 4
_READ_AHEAD = 1 << 20
"""The kernel takes no more of one call than the device's largest request, which is seldom less than this."""


@cache
def _library() -> ctypes.CDLL | None:
    """The C library, whose functions are called without the interpreter's lock, unlike `mmap.mmap.madvise`."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    return library


@cache
def can_populate() -> bool:
    """Whether this system can bring pages of a mapped file in on demand."""
    library = _library()
    if library is None:
        return False
    page = mmap.mmap(-1, mmap.PAGESIZE)
    return bool(library.madvise(ctypes.addressof(ctypes.c_char.from_buffer(page)), mmap.PAGESIZE, _POPULATE_READ) == 0)


def are_present(address: int, nbytes: int) -> bool:
    """Whether all pages are in memory: for mapped pages fifty times cheaper than to bring them in once more.

    Only for files that this process may write to or owns: of others the kernel says that all is there.
    """
    library = _library()
    assert library is not None
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    found = ctypes.create_string_buffer(-(-(address + nbytes - first) // mmap.PAGESIZE))
    return library.mincore(first, address + nbytes - first, found) == 0 and b"\0" not in memoryview(found).tobytes()


def populate(descriptor: int, offset: int, address: int, nbytes: int) -> None:
    """Bring the pages of `nbytes` at `address` in, which map the file from `offset` on.

    Raises:
        OSError: when the file is shorter, or cannot be read.
    """
    for start in range(offset, offset + nbytes, _READ_AHEAD):
        if not _is_cached(descriptor, start):
            os.posix_fadvise(descriptor, start, min(_READ_AHEAD, offset + nbytes - start), os.POSIX_FADV_WILLNEED)
    first = address // mmap.PAGESIZE * mmap.PAGESIZE
    _call(first, address + nbytes - first, _POPULATE_READ)


def _is_cached(descriptor: int, offset: int) -> bool:
    """Whether one byte is in the system's cache; False where the file system does not tell."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except OSError:
        return False


def forget_cached(descriptor: int, offset: int, nbytes: int) -> None:
    """Let the system's cache drop a stretch of a file: its whole pages, as far as nobody maps them. Does nothing on other systems."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, offset, nbytes, os.POSIX_FADV_DONTNEED)


def release(address: int, nbytes: int) -> None:
    """Let go of the whole pages inside: what was written to them is lost, what the file has stays in the system's cache."""
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
