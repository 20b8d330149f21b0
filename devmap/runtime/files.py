"""Open checkpoint files: reads into memory that is already there, and maps for weights that stay."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from typing import TYPE_CHECKING

import torch

from devmap.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Files", "memory_of"]

_HAS_PREADV = hasattr(os, "preadv")


def memory_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a flat `torch.uint8` tensor on the CPU, to read into. The tensor must outlive it. Needs no numpy."""
    if tensor.numel() == 0:
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * tensor.numel()).from_address(tensor.data_ptr())).cast("B")


class Files:
    """Files of weights, each opened once and kept open. Safe to use from several threads."""

    def __init__(self) -> None:
        self._descriptors: dict[Path, int] = {}
        self._maps: dict[Path, torch.Tensor] = {}
        self._lock = threading.Lock()

    def read_into(self, path: Path, offset: int, parts: Sequence[memoryview]) -> None:
        """Fill `parts` one after another from `offset` on, without holding the interpreter's lock.

        Raises:
            StreamError: naming the file and the offset. The file is opened anew by the next read.
        """
        pending = [part for part in parts if len(part)]
        try:
            descriptor = self._descriptor(path)
            while pending:
                got = _read(descriptor, pending, offset)
                if got == 0:
                    raise StreamError(f"{path}: the file ends at byte {offset:,}, where a weight should be", help="restore the file")
                offset += got
                while pending and got >= len(pending[0]):
                    got -= len(pending.pop(0))
                if pending:
                    pending[0] = pending[0][got:]
        except OSError as error:
            self._forget(path)
            raise StreamError(
                f"{path}: could not read {sum(map(len, pending)):,} bytes at byte {offset:,}: {error.strerror or error}",
                help="once the file can be read again, call the model again",
            ) from error

    def view(self, path: Path, offset: int, nbytes: int) -> torch.Tensor:
        """Bytes of a file as flat `torch.uint8` over a private map: no copy is made until somebody writes to it."""
        with self._lock:
            mapped = self._maps.get(path)
            if mapped is None:
                with path.open("rb") as file:
                    mapped = torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
                self._maps[path] = mapped
        return mapped[offset : offset + nbytes]

    def close(self) -> None:
        """Close the files. Maps live on as long as a weight refers to them."""
        with self._lock:
            descriptors, self._descriptors, self._maps = list(self._descriptors.values()), {}, {}
        for descriptor in descriptors:
            os.close(descriptor)

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            descriptor = self._descriptors.get(path)
            if descriptor is None:
                descriptor = self._descriptors[path] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
            return descriptor

    def _forget(self, path: Path) -> None:
        """Drop a descriptor after an error. It is not closed: another thread may be in the middle of a read on it."""
        with self._lock:
            self._descriptors.pop(path, None)


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
