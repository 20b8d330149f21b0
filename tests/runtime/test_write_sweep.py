"""A load that writes its offload folder, failed or killed at each of the first calls of each kind.

Afterwards the model gives right numbers or the load ended in an error of ours; nothing half written is left
where the next load would take it, and the next load is right and leaves the folder clean.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from devmap.config.values.device import parse_device
from devmap.errors import DevmapError
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import dispatch
from tests.runtime.streamed_nets import BLOCKS, WIDTH, plain_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10
WANTED = plain_net()(X).detach()
FIRST = 5
"""Calls of each kind that fail in turn: two more than there are blocks, each of which is a file."""

CALLS: dict[str, tuple[Any, str]] = {
    "mkdir": (Path, "mkdir"),
    "mkstemp": (tempfile, "mkstemp"),
    "fdopen": (os, "fdopen"),
    "fsync": (os, "fsync"),
    "chmod": (Path, "chmod"),
    "replace": (Path, "replace"),
    "open": (os, "open"),
    "fstat": (os, "fstat"),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "EINTR": lambda: InterruptedError(errno.EINTR, os.strerror(errno.EINTR)),
    "EROFS": lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)),
    "MemoryError": MemoryError,
    "interrupt": KeyboardInterrupt,
}


class _Failing:
    """Calls as ever, but for the n-th, before which it fails."""

    def __init__(self, call: Any, number: int, error: Callable[[], BaseException]) -> None:
        self.call, self.left, self.error = call, number, error
        self.has_failed = False

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else lambda *args, **named: self(instance, *args, **named)

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.has_failed = True
            if self.call.__name__ == "fdopen":
                os.close(args[0])  # as it does, which has taken the descriptor over
            error = self.error()
            raise error
        return self.call(*args, **named)


@pytest.fixture(autouse=True)
def _little_to_collect() -> Iterator[None]:
    """Let the collector, which runs after each load, look at nothing that was there before."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def offloaded(folder: Path) -> Any:
    """The net with live weights, each block written to the folder."""
    placements = tuple(
        Placement(f"blocks.{index}", parse_device("disk"), parse_device("cpu"), 0) for index in range(BLOCKS)
    )
    return dispatch(
        plain_net(),
        Plan(
            device_map={},
            placements=placements,
            devices=(),
            strategy="manual",
            offload_folder=str(folder),
        ),
    )


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.tmp")] + [path.name for path in folder.glob(".*")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", CALLS)
def test_each_failure_of_each_of_the_first_calls_of_an_offload_is_survived(
    call: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = CALLS[call]
    offloaded(tmp_path / "warm").devmap.remove()
    before = descriptors()
    for number in range(1, FIRST + 1):
        folder = tmp_path / f"{number}"
        failing = _Failing(getattr(owner, name), number, ERRORS[error])
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, failing)
            try:
                model = offloaded(folder)
                with torch.no_grad():
                    result = model(X)
            except (DevmapError, KeyboardInterrupt) as failure:
                assert isinstance(failure, KeyboardInterrupt) is (error == "interrupt")  # noqa: PT017 - of two kinds
                model = failure = None  # type: ignore[assignment]  # nothing is to keep its frames
            else:
                torch.testing.assert_close(result, WANTED)
                model.devmap.remove()
        if folder.exists():
            assert temporaries(folder) == []
        model = offloaded(folder)
        with torch.no_grad():
            torch.testing.assert_close(model(X), WANTED)
        model.devmap.remove()
        assert len(list(folder.glob("*.safetensors"))) == BLOCKS
        assert temporaries(folder) == []
        model = None
        assert descriptors() <= before, f"descriptors after call {number}"
        if not failing.has_failed:
            break


KILLED = """
import mmap, os, signal, sys, threading
from pathlib import Path
import torch
from devmap.runtime.storage import files
from tests.runtime import test_write_sweep as sweep
torch.set_num_threads(1)
more = {"read": (files, "_read"), "map": (mmap, "mmap"), "thread": (threading.Thread, "start")}
for kind, (owner, name) in {**sweep.CALLS, **more}.items():
    for number in sweep.KILLED_AT:
        child = os.fork()
        if child == 0:
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
            setattr(owner, name, sweep._Failing(getattr(owner, name), number, kill))
            with torch.no_grad():
                sweep.offloaded(Path(sys.argv[1]) / f"{kind}-{number}")(sweep.X)
            os._exit(0)
        print(kind, number, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
KILLED_AT = (1, 2, 4, 5)


def test_a_load_that_is_killed_leaves_nothing_that_the_next_one_minds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], check=True, capture_output=True, text=True
    )
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) == (len(CALLS) + 3) * len(KILLED_AT)
    killed = [kind for kind, _, status in ends if int(status) == -signal.SIGKILL]
    assert {status for _, _, status in ends} <= {"0", f"{-signal.SIGKILL}"}  # 0: fewer calls of this kind
    assert set(killed) >= {"mkdir", "mkstemp", "fsync", "chmod", "replace", "open", "map"}
    for kind, number, _ in ends:
        folder = tmp_path / f"{kind}-{number}"
        model = offloaded(folder)
        with torch.no_grad():
            torch.testing.assert_close(model(X), WANTED)
        model.devmap.remove()
        assert temporaries(folder) == [], (kind, number)
        assert len(list(folder.glob("*.safetensors"))) == BLOCKS
