"""Ctrl-C and `sys.exit` at any point of a pass.

The model goes on right, in every thread, and holds nothing back.
"""

from __future__ import annotations

import linecache
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import devmap
from devmap.testing import simulated_devices
from tests.runtime.streamed_nets import BLOCKS, WIDTH, load_net, plain_net, save_net

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterator

TIERS = [("disk", "cpu"), ("disk", 0), ("cpu", 0)]
RUNTIME = str(Path(devmap.__file__).parent / "runtime")
X = torch.arange(3.0 * WIDTH).reshape(3, WIDTH) / 10
WANTED = plain_net()(X).detach()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_net(tmp_path_factory.mktemp("net"))


@pytest.fixture(params=TIERS, ids=["cpu-disk", "sim-disk", "sim-cpu"])
def model(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    with simulated_devices({0: "1MB"}):
        loaded = load_net(folder, *request.param)
        yield loaded
        loaded.devmap.remove()


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """Turn gradients on again.

    A signal that comes in the middle of the exit of `torch.no_grad()` leaves them off: that is torch's own
    code, in which nothing of ours could see it.
    """
    yield
    torch.set_grad_enabled(True)


def require_whole(model: Any) -> None:
    """The model has right numbers in this thread and in another one, and nothing is in."""
    for _ in range(2):
        torch.testing.assert_close(model(X).cpu().detach(), WANTED)
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(model(X).cpu().detach()), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "another thread waits for ever"
    torch.testing.assert_close(found[0], WANTED)
    assert [block.depth for block in model.devmap.blocks] == [0] * BLOCKS
    assert all(block.place is None for block in model.devmap.blocks)
    assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    engine = model.devmap.engine
    assert not engine._inside
    assert not engine._lock._is_owned()
    assert engine._lock.acquire(blocking=False)
    engine._lock.release()
    for lane in engine.lanes.values():
        assert not any(slot.in_use for slot in getattr(lane, "slots", ()))


@pytest.mark.parametrize("grad", [False, True], ids=["", "grad"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError, GeneratorExit])
def test_an_error_of_any_kind_inside_a_block_lets_it_go(
    model: Any, error: type[BaseException], grad: bool
) -> None:
    with torch.set_grad_enabled(grad):
        for index in (0, 2, BLOCKS - 1):

            def stop() -> None:
                raise error

            model.blocks[index].during = stop
            with pytest.raises(error):
                model(X)
            model.blocks[index].during = None
            require_whole(model)


def test_after_an_interrupt_with_gradients_another_model_trains(model: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    model.blocks[1].during = stop
    with pytest.raises(KeyboardInterrupt):
        model(X.clone().requires_grad_())
    model.blocks[1].during = None
    other = plain_net()
    other(X).sum().backward()
    assert all(parameter.grad is not None for parameter in other.parameters())
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None
    want = X.clone().requires_grad_()
    plain_net()(want).sum().backward()
    torch.testing.assert_close(x.grad, want.grad)


class _AtLine:
    """Raises at the n-th line of the runtime's own code that this thread comes to.

    Not at a `with`: at its end the tracer sees it once more, between the block and the exit of what it
    holds, where Python itself looks for no signal.
    """

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: types.FrameType, event: str, _argument: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(RUNTIME):
            return None
        if event == "line" and not linecache.getline(
            frame.f_code.co_filename, frame.f_lineno
        ).lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def interrupted_at(line: int, call: Callable[[], object]) -> bool:
    """Whether a call was interrupted at that line of the runtime before it ended."""
    before = sys.gettrace()
    sys.settrace(_AtLine(line))
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


_POINTS = 100
"""Of a pass, spread over all its lines; `DEVMAP_SWEEP=1` takes every line."""


@pytest.mark.parametrize("grad", [False, True], ids=["", "grad"])
def test_an_interrupt_at_any_line_of_a_pass_is_survived(model: Any, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        model(X)  # so that the order is known, and blocks are read ahead
        counter = _AtLine(sys.maxsize)
        sys.settrace(counter)
        model(X)
        sys.settrace(None)
        lines = sys.maxsize - counter.left
        step = 1 if os.environ.get("DEVMAP_SWEEP") else max(1, lines // _POINTS)
        stopped = 0
        for line in range(1, lines, step):
            stopped += interrupted_at(line, lambda: model(X))
            torch.testing.assert_close(model(X).cpu().detach(), WANTED)
            if line % (step * 10) == 1 or step == 1:
                require_whole(model)
    assert stopped > min(_POINTS, lines // step) // 2
    require_whole(model)


# An interrupt may come inside a finalizer, from where Python cannot raise it: it is printed, and lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_signals_at_any_time_are_survived(model: Any) -> None:
    """A timer in place of a person: an interrupt after each of many short times."""
    armed = False

    def ring(_number: int, _frame: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    stopped = 0
    try:
        for tenths in range(1, 120):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, tenths / 20_000)
                with torch.no_grad():
                    for _ in range(4):
                        model(X)
                armed = False
            except KeyboardInterrupt:
                armed = False
                stopped += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            with torch.no_grad():
                torch.testing.assert_close(model(X).cpu(), WANTED)
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped > 10
    require_whole(model)
