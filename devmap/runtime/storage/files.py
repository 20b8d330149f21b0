"""Open checkpoint files: reads into memory that is already there, and maps for weights that stay."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.errors import StreamError
from devmap.runtime.storage.file_identity import Original, cut_short
from devmap.runtime.storage.page_cache import (
    DIRECT,
    DirectReader,
    are_present,
    forget_cached,
    populate,
    release,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Files", "Pages", "memory_of", "read_once"]

_HAS_PREADV = hasattr(os, "preadv")
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def memory_of(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a flat `torch.uint8` tensor on the CPU, to read into. The tensor must outlive it.

    Needs no numpy.
    """
    if tensor.numel() == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * tensor.numel()).from_address(tensor.data_ptr())).cast("B")


@dataclass(frozen=True)
class Pages:
    """A mapped file. The descriptor is that of the very file that is mapped, whatever has its name by now."""

    path: Path
    memory: torch.Tensor
    """All of it, flat `torch.uint8`."""
    descriptor: int
    original: Original | None
    """What it is compared with; None where nobody looks."""

    @classmethod
    def of(cls, path: Path, original: Original | None) -> Pages:
        """Map a file for reading; writes stay in this process."""
        descriptor = os.open(path, _READ)
        try:
            memory = torch.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, memory, descriptor, original)

    def require(self, end: int) -> None:
        """Make sure that the file still reaches `end` and is the same.

        Reading mapped bytes past its end would kill the process.

        Raises:
            StreamError: when it was cut short or overwritten, or the system cannot tell.
        """
        try:
            size = os.fstat(self.descriptor).st_size
            if min(size, self.memory.numel()) < end:
                raise cut_short(self.path, size)
            if self.original is not None:
                self.original.require(self.descriptor)
        except OSError as error:
            raise _unreadable(self.path, 0, end, error) from error

    def bring(self, offset: int, nbytes: int, *, again: bool) -> None:
        """Bring pages in, without holding the interpreter's lock; `again` says that they were in before.

        Raises:
            StreamError: naming the file and the offset.
        """
        self.require(offset + nbytes)
        address = self.memory.data_ptr() + offset
        if again and os.access(self.path, os.W_OK) and are_present(address, nbytes):
            return
        try:
            populate(self.descriptor, offset, address, nbytes)
        except OSError as error:
            raise _unreadable(self.path, offset, nbytes, error) from error

    def release(self, offset: int, nbytes: int, *, forget: bool) -> None:
        """Let go of pages: they stay in the system's cache as long as there is room.

        Unless it is to `forget` them.
        """
        release(self.memory.data_ptr() + offset, nbytes)
        if forget:
            forget_cached(self.descriptor, offset, nbytes)


class Files:
    """Files of weights, each opened once and kept open. Safe to use from several threads."""

    def __init__(self, *, direct: bool = False, buffer_bytes: int = 1 << 20) -> None:
        """`direct` reads past the page cache where the file system lets us.

        Through a buffer of `buffer_bytes` a thread.
        """
        self.requested_bytes = 0
        """What was asked of files so far, whether the disk gave it or the system's cache."""
        self._direct = DirectReader(buffer_bytes) if direct and DIRECT else None
        self._descriptors: dict[Path, int] = {}
        self._originals: dict[Path, Original] = {}
        self._maps: dict[tuple[Path, bool], Pages] = {}
        self._stale: dict[Path, int] = {}
        """Descriptors of files that could not be read, until the file is opened anew."""
        self._mapped: list[int] = []
        """The descriptors of all maps, old ones too."""
        self._lock = threading.Lock()

    @property
    def is_direct(self) -> bool:
        """Whether reads go past the page cache; false from the first file system on that refuses."""
        return self._direct is not None

    @property
    def mapped_paths(self) -> tuple[Path, ...]:
        """The files that weights stay mapped from."""
        with self._lock:
            return tuple(path for path, streamed in self._maps if not streamed)

    def watch(self, path: Path) -> None:
        """Compare a file from now on with what it is now.

        Raises:
            StreamError: when it cannot be read.
        """
        with self._lock:
            if path in self._originals:
                return
        try:
            descriptor = os.open(path, _READ)
            try:
                original = Original(path, descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _unreadable(path, 0, 0, error) from error
        with self._lock:
            self._originals.setdefault(path, original)

    def read_into(
        self, path: Path, offset: int, parts: Sequence[memoryview], *, forget: bool = False
    ) -> None:
        """Fill `parts` one after another from `offset` on, without holding the interpreter's lock.

        `forget` lets the system's cache drop the bytes: nobody will ask for them before it would have done so
        itself.

        Raises:
            StreamError: naming the file and the offset. The file is opened anew by the next read.
        """
        nbytes = sum(map(len, parts))
        try:
            descriptor = self._descriptor(path)
            original = self._originals.get(path)
            stamp = None if original is None else original.require(descriptor)
            self._fill(path, descriptor, parts, offset)
            while original is not None and (now := original.require(descriptor)) != stamp:
                # it was written to meanwhile and is the same again: what was read may be what stood there
                # between
                stamp = now
                self._fill(path, descriptor, parts, offset)
            if forget:
                forget_cached(descriptor, offset, nbytes)
        except OSError as error:
            self._forget(path)
            raise _unreadable(path, offset, nbytes, error) from error
        except StreamError:
            self._forget(path)
            raise
        self.count(nbytes)

    def _fill(self, path: Path, descriptor: int, parts: Sequence[memoryview], offset: int) -> None:
        pending = [part for part in parts if len(part)]
        try:
            while pending:
                got = self._read(path, descriptor, pending, offset)
                if got == 0:
                    raise cut_short(path, offset)
                offset += got
                while pending and got >= len(pending[0]):
                    got -= len(pending.pop(0))
                if pending:
                    pending[0] = pending[0][got:]
        except OSError as error:
            raise _unreadable(path, offset, sum(map(len, pending)), error) from error

    def count(self, nbytes: int) -> None:
        """Count bytes that were asked of a file."""
        with self._lock:
            self.requested_bytes += nbytes

    def view(self, path: Path) -> torch.Tensor:
        """Return a file as flat `torch.uint8` over a private map.

        No copy is made until somebody writes to it.
        """
        return self.pages(path, streamed=False).memory

    def pages(self, path: Path, *, streamed: bool) -> Pages:
        """Return a file's map.

        Streamed bytes have one of their own: what is written to it is lost when its pages are let go of.

        Raises:
            StreamError: when the file cannot be opened.
        """
        with self._lock:
            found = self._maps.get((path, streamed))
            if found is None:
                try:
                    found = self._maps[path, streamed] = Pages.of(path, self._originals.get(path))
                except (OSError, ValueError) as error:  # an empty file is a ValueError
                    raise StreamError(
                        f"{path}: could not be mapped: {error}", help="restore the file"
                    ) from error
                self._mapped.append(found.descriptor)
            return found

    def require_maps(self) -> None:
        """Make sure that the files which weights stay mapped from are as they were.

        Raises:
            StreamError: when one was cut short or overwritten in place.
        """
        with self._lock:
            staying = [
                (pages, self._originals.get(path))
                for (path, streamed), pages in self._maps.items()
                if not streamed
            ]
        for pages, original in staying:
            try:
                if original is not None:
                    original.require(pages.descriptor)
            except OSError as error:
                raise _unreadable(pages.path, 0, pages.memory.numel(), error) from error

    def forget_pages(self, path: Path, pages: Pages) -> None:
        """Map the streamed bytes of a file anew at the next use, unless that has happened.

        Those who hold the old map keep it.
        """
        with self._lock:
            if self._maps.get((path, True)) is pages:
                del self._maps[path, True]

    def close(self) -> None:
        """Close the files. Maps live on as long as a weight refers to them."""
        with self._lock:
            descriptors = [*self._descriptors.values(), *self._stale.values(), *self._mapped]
            self._descriptors, self._stale, self._maps, self._mapped = {}, {}, {}, []
        for descriptor in descriptors:
            os.close(descriptor)

    def _read(self, path: Path, descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        direct = self._direct
        if direct is None:
            return _read(descriptor, parts, offset)
        try:
            return direct.read_into(descriptor, parts, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        self._refuse_direct(path)
        self._forget(path)
        return _read(self._descriptor(path), parts, offset)

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            descriptor = self._descriptors.get(path)
        if descriptor is not None:
            return descriptor
        descriptor = self._open(path)
        with self._lock:
            stale = self._stale.pop(path, None)
            if stale is not None:
                os.dup2(descriptor, stale, inheritable=False)
                os.close(descriptor)
                descriptor = stale
            kept = self._descriptors.setdefault(path, descriptor)
        if kept != descriptor:  # another thread was faster
            os.close(descriptor)
        return kept

    def _open(self, path: Path) -> int:
        if self._direct is not None:
            try:
                return os.open(path, _READ | DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            self._refuse_direct(path)
        return os.open(path, _READ)

    def _refuse_direct(self, path: Path) -> None:
        with self._lock:
            was_direct, self._direct = self._direct is not None, None
        if was_direct:
            warnings.warn(
                f"the file system of {path} takes no direct reads; reading through the page cache",
                stacklevel=2,
            )

    def _forget(self, path: Path) -> None:
        """Open a file anew before the next read, after an error.

        Its descriptor is not closed: another thread may be in the middle of a read on it. It becomes that of
        the file that is opened next, so that no error costs one.
        """
        with self._lock:
            descriptor = self._descriptors.pop(path, None)
            if descriptor is not None:
                self._stale[path] = descriptor


def read_once(path: Path, offset: int, nbytes: int) -> bytearray:
    """Return a part of a file that is opened for this alone.

    Raises:
        StreamError: when it cannot be read, or the file ends before.
    """
    content = bytearray(nbytes)
    files = Files()
    try:
        files.read_into(path, offset, [memoryview(content)])
    finally:
        files.close()
    return content


def _unreadable(path: Path, offset: int, nbytes: int, error: OSError) -> StreamError:
    return StreamError(
        f"{path}: could not read {nbytes:,} bytes at byte {offset:,}: {error.strerror or error}",
        help="once the file can be read again, call the model again",
    )


if sys.platform == "win32":
    _seek_lock = threading.Lock()

    def _read(descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        with _seek_lock:  # there is no read at an offset here: seek and read must not be parted
            os.lseek(descriptor, offset, os.SEEK_SET)
            chunk = os.read(descriptor, len(parts[0]))
        parts[0][: len(chunk)] = chunk
        return len(chunk)

else:

    def _read(descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        if _HAS_PREADV:
            return os.preadv(descriptor, parts[:512], offset)
        chunk = os.pread(descriptor, len(parts[0]), offset)
        parts[0][: len(chunk)] = chunk
        return len(chunk)
