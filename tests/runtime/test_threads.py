"""Threads on one model: each call is its own, and none of them waits for ever."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch

from devmap.errors import DevmapError
from devmap.runtime.dispatch import dispatch
from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import BLOCKS, WIDTH, Net, load_net, plain_net, save_net

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10


def together(*calls: Callable[[], None]) -> list[BaseException]:
    """What calls that start at one time in a thread each raise; fails where one does not end."""
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], None]) -> None:
        start.wait()
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
    return errors


def test_each_thread_gets_its_output_where_its_input_was(plan_of: PlanOf) -> None:
    """The calls are made to overlap: each waits in its middle until the other has begun."""
    with simulated_devices({0: "1MB", 1: "1MB"}), torch.no_grad():
        plain = plain_net()
        model: Any = dispatch(plain_net(), plan_of(Net(), lambda path: (0, 0) if path[7] in "01" else (1, 1)))
        meeting = threading.Barrier(2)
        model.blocks[2].during = lambda: meeting.wait(20)
        wanted = plain(X)

        def call(device: str) -> None:
            for _ in range(5):
                result = model(X.to(device))
                assert str(result.device) == device
                torch.testing.assert_close(result.cpu(), wanted)

        assert together(lambda: call("sim:0"), lambda: call("cpu")) == []


@pytest.mark.parametrize(
    "tier", [("disk", "cpu"), ("disk", 0), ("cpu", 0)], ids=["cpu-disk", "sim-disk", "sim-cpu"]
)
def test_threads_orders_and_errors_at_once(tmp_path: Path, tier: tuple[Any, Any]) -> None:
    with simulated_devices({0: "1MB"}), torch.no_grad():
        plain, model = plain_net(), load_net(save_net(tmp_path / "net"), *tier)

        def fail() -> None:
            if threading.current_thread().name.endswith("fails"):
                raise ValueError("of the model's own")

        for block in model.blocks:
            block.during = fail

        def call(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(12):
                order = [draw.randrange(BLOCKS) for _ in range(draw.randrange(1, 7))]
                torch.testing.assert_close(model(X, order).cpu(), plain(X, order))

        def raises(seed: int) -> None:
            threading.current_thread().name += " fails"
            for number in range(12):
                with pytest.raises(ValueError, match="of the model's own"):
                    model(X, [number % BLOCKS, seed % BLOCKS])

        def trims() -> None:
            for _ in range(12):
                model.devmap.trim()
                model.devmap.stats()

        assert together(*(lambda seed=seed: call(seed) for seed in range(3)), lambda: raises(7), trims) == []
        assert [block.depth for block in model.devmap.blocks] == [0] * BLOCKS
        model.devmap.remove()


@pytest.mark.parametrize(
    "tier", [("disk", "cpu"), ("disk", 0), ("cpu", 0)], ids=["cpu-disk", "sim-disk", "sim-cpu"]
)
def test_remove_waits_for_the_block_that_runs(tmp_path: Path, tier: tuple[Any, Any]) -> None:
    """A pass that is under way ends with right numbers or an error; the model that is given back is whole."""
    with simulated_devices({0: "1MB"}), torch.no_grad():
        plain = plain_net()
        wanted = plain(X)
        save_net(tmp_path / "net")
        for _ in range(6):
            model = load_net(tmp_path / "net", *tier)
            under_way = threading.Event()
            model.blocks[1].during = under_way.set

            def call(model: Any = model) -> None:
                for _ in range(8):
                    torch.testing.assert_close(model(X).cpu(), wanted)

            def remove(model: Any = model, under_way: threading.Event = under_way) -> None:
                under_way.wait(20)
                model.devmap.remove()

            errors = together(call, remove)
            assert all(isinstance(error, DevmapError | RuntimeError) for error in errors), errors
            model.blocks[1].during = None
            torch.testing.assert_close(model(X).cpu(), wanted)
