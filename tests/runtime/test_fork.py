"""A fork has none of the threads that stream.

There a streamed model says so, at once, and the parent's goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from devmap.errors import StreamError
from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import WIDTH, load_net, plain_net, save_net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10
WANTED = plain_net()(X).detach()


@pytest.fixture(params=[("disk", "cpu"), ("disk", 0), ("cpu", 0)], ids=["cpu-disk", "sim-disk", "sim-cpu"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with simulated_devices({0: "1MB"}), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        loaded = load_net(save_net(tmp_path / "net"), *request.param)
        loaded(X)
        yield loaded
        torch.testing.assert_close(loaded(X).cpu(), WANTED)
        loaded.devmap.remove()


def in_child(call: Callable[[], bool]) -> int:
    """The exit status of a fork that makes a call.

    0 for true, 1 for false, 2 for an error, -9 where it hung.
    """
    child = os.fork()
    if child == 0:
        status = 2
        try:
            status = 0 if call() else 1
        finally:
            os._exit(status)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def refuses(call: Callable[[], object]) -> bool:
    try:
        call()
    except StreamError as error:
        return "forked" in error.message and "spawn" in error.help
    return False


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(X),
        lambda model: model.blocks[1](X),
        lambda model: model.blocks[0].inner.weight + 1,
        lambda model: model.state_dict(),
        lambda model: model.devmap.remove(),
        lambda model: model.devmap.trim(),
    ],
    ids=["root", "block", "weight", "state_dict", "remove", "trim"],
)
def test_every_use_in_a_fork_is_refused(model: Any, use: Callable[[Any], object]) -> None:
    assert in_child(lambda: refuses(lambda: use(model))) == 0


def test_a_fork_in_the_middle_of_a_pass_does_not_hang(model: Any) -> None:
    statuses: list[int] = []
    model.blocks[2].during = lambda: statuses.append(in_child(lambda: refuses(lambda: model(X))))
    model(X)
    model.blocks[2].during = None
    assert statuses == [0]


def test_what_a_fork_does_not_use_it_may_let_go(model: Any) -> None:
    def forget() -> bool:
        model.devmap.engine.close()
        return True

    assert in_child(forget) == 0


class _Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((WIDTH,), float(index))


def test_workers_of_a_data_loader_live_beside_a_streamed_model(model: Any) -> None:
    loader = DataLoader(_Rows(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    plain = plain_net()
    for batch in loader:
        torch.testing.assert_close(model(batch).cpu(), plain(batch))


def test_a_process_of_multiprocessing_says_so_too(model: Any) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=lambda: queue.put(refuses(lambda: model(X))))
    process.start()
    assert queue.get(timeout=20) is True
    process.join(20)
    assert process.exitcode == 0
