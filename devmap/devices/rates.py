"""Rates of this machine, measured by doing the work for a bounded time.

Disk reads, memory copies, matrix products.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from devmap.devices.backend import Backend

__all__ = ["DiskRates", "disk_rates", "flops", "host_to_device_rate", "memory_rate"]

_REQUEST_BYTES = 8 << 20
"""One read: the middle of what the runtime asks for at once."""
_COPY_BYTES = 64 << 20
"""Past every cache."""


@dataclass(frozen=True, slots=True)
class DiskRates:
    """Sequential reads of one file, in bytes a second by the number of requests in flight."""

    by_depth: dict[int, float]
    file_bytes: int
    is_cold: bool
    """Whether the page cache was dropped between the runs; false where the system has no way to ask for that.
    """

    @property
    def best(self) -> float:
        """The highest of the rates."""
        return max(self.by_depth.values())


def disk_rates(
    folder: Path, *, depths: tuple[int, ...] = (1, 4, 8), seconds: float = 2.0, file_bytes: int = 256 << 20
) -> DiskRates:
    """Read a temporary file of our own in `folder` at several queue depths, within about `seconds` in all.

    The file is at most `file_bytes` long, shorter where writing it takes more than half of the time or the
    disk has less than twice that free. It is written with random bytes (some disks compress), synced, dropped
    from the page cache before each run, and unlinked before anything else happens.

    Raises:
        OSError: when the folder cannot be written to.
    """
    with _unlinked(folder) as descriptor:
        written = _fill(descriptor, limit=min(file_bytes, _free_bytes(folder) // 2), seconds=seconds / 2)
        is_cold = _drop_cache(descriptor)
        rates = {}
        for depth in depths:
            _drop_cache(descriptor)
            rates[depth] = _read_rate(descriptor, written, depth=depth, seconds=seconds / 2 / len(depths))
        return DiskRates(rates, written, is_cold)


def memory_rate(backend: Backend, *, seconds: float = 0.5, nbytes: int = _COPY_BYTES) -> float:
    """Return the bytes a second that a device reads and writes in its own memory.

    A copy inside it moves each byte twice.
    """
    source, destination = backend.allocate(nbytes), backend.allocate(nbytes)
    source.fill_(1)  # fresh pages of the host are all one zero page until they are written
    destination.fill_(0)

    def copy() -> None:
        destination.copy_(source)
        backend.synchronize()

    return 2 * nbytes * _calls_a_second(copy, seconds=seconds)


def host_to_device_rate(
    backend: Backend, *, seconds: float = 0.5, nbytes: int = _COPY_BYTES
) -> tuple[float, bool]:
    """Return the bytes a second from host memory to a device, and whether the host side was pinned."""
    slab = backend.pinned_allocate(nbytes)
    destination = backend.allocate(nbytes)
    stream = backend.stream()

    def transfer() -> None:
        backend.copy(destination, slab.tensor, stream=stream)
        stream.synchronize()

    return nbytes * _calls_a_second(transfer, seconds=seconds), slab.is_pinned


def flops(backend: Backend, dtype: torch.dtype, *, seconds: float = 0.3, size: int = 1024) -> float | None:
    """Floating-point operations a second of square matrix products.

    None where the device cannot multiply this dtype.
    """
    left = torch.ones((size, size), dtype=dtype, device=backend.torch_device)

    def multiply() -> None:
        torch.mm(left, left)
        backend.synchronize()

    try:
        rate = _calls_a_second(multiply, seconds=seconds)
    except RuntimeError:  # torch's word for a kernel that is not there
        return None
    return 2 * size**3 * rate


def _calls_a_second(call: Callable[[], object], *, seconds: float) -> float:
    """Return the rate of the fastest call of those that fit into `seconds`.

    Noise only ever makes a call slower.

    The first call warms up and is not counted, unless it alone took all the time: where a device multiplies a
    dtype by software, one call can take seconds, and a second one would only confirm it.
    """
    start = time.perf_counter()
    call()
    deadline = start + seconds
    first = time.perf_counter() - start
    if first >= seconds:
        return 1 / first
    best = float("inf")
    while True:
        start = time.perf_counter()
        call()
        end = time.perf_counter()
        best = min(best, end - start)
        if end >= deadline:
            return 1 / max(best, 1e-9)


@contextlib.contextmanager
def _unlinked(folder: Path) -> Iterator[int]:
    """Open a file without a name: nothing is left behind, whatever happens."""
    with tempfile.TemporaryFile(prefix=".devmap-probe-", dir=folder, buffering=0) as file:
        yield file.fileno()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _fill(descriptor: int, *, limit: int, seconds: float) -> int:
    block = os.urandom(_REQUEST_BYTES)
    deadline = time.perf_counter() + seconds
    written = 0
    while written < max(limit, 1) and (written == 0 or time.perf_counter() < deadline):
        written += os.write(descriptor, block[: max(1, limit - written)])
        os.fsync(descriptor)
    return written


def _drop_cache(descriptor: int) -> bool:
    if not hasattr(os, "posix_fadvise"):
        return False
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _read_rate(descriptor: int, nbytes: int, *, depth: int, seconds: float) -> float:
    deadline = time.perf_counter() + seconds
    requests = count()  # next() of one counter is atomic under the interpreter's lock

    def read_some() -> int:
        done = 0
        buffer = bytearray(min(_REQUEST_BYTES, nbytes))
        while (offset := next(requests) * len(buffer)) < nbytes:
            done += _read_at(descriptor, buffer, offset)
            if time.perf_counter() > deadline:
                break
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(depth) as pool:
        done = sum(future.result() for future in [pool.submit(read_some) for _ in range(depth)])
    return done / max(time.perf_counter() - start, 1e-9)


def _read_at(descriptor: int, buffer: bytearray, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    return len(os.pread(descriptor, len(buffer), offset))
