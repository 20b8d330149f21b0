"""A failing disk, swept: each kind of failure at each of the first reads of a pass.

Right numbers or an error of ours.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from devmap.errors import DevmapError
from devmap.runtime.storage import files
from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import WIDTH, load_net, plain_net, save_net

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10
WANTED = plain_net()(X).detach()
FIRST = 12
"""Reads of each pass that fail in turn."""

_read = files._read


class _Failing:
    """Reads as ever, but for the n-th, which fails in its way."""

    def __init__(self, number: int, fail: Callable[[int], int | None]) -> None:
        self.left = number
        self.fail = fail
        self.lock = threading.Lock()

    def __call__(self, descriptor: int, parts: Sequence[memoryview], offset: int) -> int:
        with self.lock:
            self.left -= 1
            is_turn = self.left == 0
        if is_turn:
            result = self.fail(len(parts[0]))
            if result is not None:
                return _read(descriptor, [parts[0][:result]], offset)
        return _read(descriptor, parts, offset)


def _error(number: int) -> Callable[[int], int | None]:
    def fail(_length: int) -> int | None:
        raise OSError(number, os.strerror(number))

    return fail


def _no_memory(_length: int) -> int | None:
    raise MemoryError


FAILURES: dict[str, Callable[[int], int | None]] = {
    "EIO": _error(errno.EIO),
    "EINTR": _error(errno.EINTR),
    "ESTALE": _error(errno.ESTALE),
    "ENOMEM": _error(errno.ENOMEM),
    "short": lambda length: max(1, length // 2),
    "memory": _no_memory,
}


def held() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_of_each_of_the_first_reads_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    folder = save_net(tmp_path / "net")
    with simulated_devices({0: "1MB"}), torch.no_grad():
        before = held()
        model: Any = load_net(folder, "disk", 0)
        model(X)
        failed = 0
        for number in range(1, FIRST + 1):
            with monkeypatch.context() as patched:
                patched.setattr(files, "_read", _Failing(number, FAILURES[failure]))
                for _ in range(2):
                    try:
                        torch.testing.assert_close(model(X).cpu(), WANTED)
                    except (DevmapError, MemoryError):
                        failed += 1
            torch.testing.assert_close(model(X).cpu(), WANTED)
            assert [block.depth for block in model.devmap.blocks] == [0] * len(model.devmap.blocks)
        assert failed == 0 or failure != "short"
        model.devmap.remove()
        torch.testing.assert_close(model(X), WANTED)
        after = held()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1]
