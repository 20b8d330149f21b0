"""Whether a file is still the one that the model was loaded from.

A file that is replaced by another name (write, then rename) does no harm: what is open stays open. One that
is written to in place, or opened anew after an error, may hold other weights by now. Size and time of change
are looked at after each read; where they differ, the header and a few pages spread over the file decide
whether the same bytes are back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from typing import TYPE_CHECKING

from devmap.errors import StreamError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Original", "Stamp", "cut_short"]

_PAGES = 32
_PAGE_BYTES = 4096
_HEADER_BYTES = 1 << 20

Stamp = tuple[int, int, int, int]
"""Device, number, size in bytes and time of change of a file."""


class Original:
    """A file as it was when it was opened first."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Takes a sample: some 33 small reads.

        Raises:
            OSError: when the file cannot be read.
        """
        self.path = path
        self._stamp = _stamp(descriptor)
        self._size = self._stamp[2]
        self._digest = _sample(descriptor, self._size)
        self._lock = threading.Lock()

    def require(self, descriptor: int) -> Stamp:
        """Make sure that an open file is the original, or a faithful copy; which of them, its stamp says.

        Bytes are the original's where the stamp is the same before and after they are read.

        Raises:
            StreamError: when it was cut short, or overwritten.
            OSError: when it cannot be read.
        """
        stamp = _stamp(descriptor)
        if stamp == self._stamp:
            return stamp
        if stamp[2] < self._size:
            raise cut_short(self.path, stamp[2])
        with self._lock:
            if stamp[2] != self._size or _sample_of(descriptor, self._size) != self._digest:
                raise StreamError(
                    f"{self.path}: the file has changed since the model was loaded from it (it has "
                    f"{stamp[2]:,} bytes now)",
                    help="bring the old file back, or load the model again",
                )
            self._stamp = stamp
            return stamp


def cut_short(path: Path, size: int) -> StreamError:
    """Return what to raise where a weight should be in a file and is not."""
    return StreamError(
        f"{path}: the file ends at byte {size:,}, where a weight should be", help="restore the file"
    )


def _stamp(descriptor: int) -> Stamp:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _sample_of(descriptor: int, size: int) -> bytes:
    """Return a sample through a descriptor that may be one for direct reads: these take no small ones."""
    try:
        return _sample(descriptor, size)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    try:
        return _sample(again, size)
    finally:
        os.close(again)


def _sample(descriptor: int, size: int) -> bytes:
    """Return a digest of the header's first megabyte and of pages that are spread over the file."""
    digest = hashlib.sha256()
    start = _read(descriptor, 8, 0)
    header = int.from_bytes(start, "little")
    digest.update(start + _read(descriptor, min(header, _HEADER_BYTES), 8))
    for number in range(_PAGES):
        digest.update(_read(descriptor, _PAGE_BYTES, size * number // _PAGES // _PAGE_BYTES * _PAGE_BYTES))
    digest.update(_read(descriptor, _PAGE_BYTES, max(0, size - _PAGE_BYTES)))
    return digest.digest()


def _read(descriptor: int, nbytes: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, nbytes, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, nbytes)
