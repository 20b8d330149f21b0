"""A failing machine, swept over a whole load: each kind of failure at each of the first calls of its kind.

Afterwards the model gives right numbers or the load ended in an error of ours (an interrupt passes through);
no thread, descriptor or byte of a device is left behind, and the next load is right.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch

from devmap.devices.simulated import SimulatedBackend
from devmap.errors import DevmapError, OutOfMemoryError
from devmap.runtime.storage import files
from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import WIDTH, load_net, plain_net, save_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10
WANTED = plain_net()(X).detach()
FIRST = 8
"""Calls of each kind that fail in turn."""


class Kind(NamedTuple):
    """A function of the system, or of torch, and how it fails."""

    owner: Any
    name: str
    error: Callable[[], BaseException]
    caller: str = ""
    """The only function whose calls count, where others do something else with it."""


def _os_error(number: int) -> Callable[[], BaseException]:
    return lambda: OSError(number, os.strerror(number))


def _no_thread() -> BaseException:
    return RuntimeError("can't start new thread")  # as threading words it


def _no_allocation() -> BaseException:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")


def _no_room() -> BaseException:
    return OutOfMemoryError("sim:0", requested_bytes=9, used_bytes=9, budget_bytes=9)


KINDS = {
    "open: EMFILE": Kind(os, "open", _os_error(errno.EMFILE)),
    "open: EACCES": Kind(os, "open", _os_error(errno.EACCES)),
    "open: ENOENT": Kind(os, "open", _os_error(errno.ENOENT)),
    "fstat: EIO": Kind(os, "fstat", _os_error(errno.EIO)),
    "fstat: ESTALE": Kind(os, "fstat", _os_error(errno.ESTALE)),
    "read: EIO": Kind(files, "_read", _os_error(errno.EIO)),
    "read: ENOMEM": Kind(files, "_read", _os_error(errno.ENOMEM)),
    "read: MemoryError": Kind(files, "_read", MemoryError),
    "map: ENOMEM": Kind(mmap, "mmap", _os_error(errno.ENOMEM)),
    "map: ENODEV": Kind(mmap, "mmap", _os_error(errno.ENODEV)),
    "populate: EIO": Kind(files, "populate", _os_error(errno.EIO)),
    "populate: EFAULT": Kind(files, "populate", _os_error(errno.EFAULT)),
    "thread refused": Kind(threading.Thread, "start", _no_thread),
    "host memory refused": Kind(torch, "empty", _no_allocation, "pageable"),
    "host memory: MemoryError": Kind(torch, "empty", MemoryError, "pageable"),
    "pinned memory refused": Kind(SimulatedBackend, "pinned_allocate", _no_room),
    "device memory refused": Kind(SimulatedBackend, "allocate", _no_room),
    "interrupt at an open": Kind(os, "open", KeyboardInterrupt),
    "interrupt at a submit": Kind(ThreadPoolExecutor, "submit", KeyboardInterrupt),
}
TIERS = [(0, 0), ("cpu", 0), ("disk", 0), ("cpu", "cpu"), ("disk", "cpu")]


class _Failing:
    """Calls as ever, but for the n-th, which fails."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.left, self.kind = number, kind
        self.call = getattr(kind.owner, kind.name)
        self.lock = threading.Lock()
        self.has_failed = False

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else lambda *args, **named: self(instance, *args, **named)

    def __call__(self, *args: Any, **named: Any) -> Any:
        if self.kind.caller not in {"", sys._getframe(1).f_code.co_name}:
            return self.call(*args, **named)
        with self.lock:
            self.left -= 1
            is_turn = self.left == 0
        if is_turn:
            self.has_failed = True
            error = self.kind.error()
            raise error
        return self.call(*args, **named)


@pytest.fixture(autouse=True)
def _little_to_collect() -> Iterator[None]:
    """Let the collector, which runs after each load, look at nothing that was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def held() -> tuple[int, int]:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.parametrize("tiers", TIERS, ids=lambda tiers: f"{tiers[0]} to {tiers[1]}")
@pytest.mark.parametrize("kind", KINDS)
def test_each_failure_of_each_of_the_first_calls_of_a_load_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, tiers: tuple[int | str, int | str]
) -> None:
    folder = save_net(tmp_path / "net")
    with simulated_devices({0: "1MB"}) as devices, torch.no_grad():
        load_net(folder, *tiers).devmap.remove()  # whatever is made once for a process is made
        before = held()
        # A model that lies on one device has no hook that would move what it is given.
        x = X.to("sim:0") if tiers == (0, 0) else X
        used = devices[0].used_bytes
        for number in range(1, FIRST + 1):
            failing = _Failing(number, KINDS[kind])
            failure: BaseException | None = None
            with monkeypatch.context() as patched:
                patched.setattr(KINDS[kind].owner, KINDS[kind].name, failing)
                try:
                    model: Any = load_net(folder, *tiers)
                    result = model(x)
                except (DevmapError, KeyboardInterrupt) as error:
                    failure = error.with_traceback(None)
                    failure.__cause__ = failure.__context__ = None
            if failure is None:
                torch.testing.assert_close(result.cpu(), WANTED)
                result = None
                model.devmap.remove()
            else:
                assert isinstance(failure, KeyboardInterrupt) is ("interrupt" in kind)
                assert failing.has_failed
                failure = None
            model = None
            after = held()
            assert after[0] <= before[0], f"descriptors after call {number}"
            assert after[1] <= before[1], f"threads after call {number}"
            assert devices[0].used_bytes == used, f"bytes of the device after call {number}"
            if not failing.has_failed:
                break  # a load has fewer calls of this kind
        again = load_net(folder, *tiers)
        torch.testing.assert_close(again(x).cpu(), WANTED)
        again.devmap.remove()
