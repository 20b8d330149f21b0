"""What a model keeps of a streamed block beyond its forward, or uses without it.

The right numbers, or an error with a name.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from devmap.errors import StreamError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.runtime.dispatch import load_model
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_BLOCKS = 6


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.gain = nn.Parameter(torch.rand(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + torch.tanh(self.inner(x)) * self.gain
        return result


class _Net(nn.Module):
    """Blocks, and two weights directly on the module that is split."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.rand(8))
        self.scale = nn.Parameter(torch.rand(()))
        self.blocks = nn.ModuleList([_Block() for _ in range(_BLOCKS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.start
        for block in self.blocks:
            x = block(x) * self.scale
        return x + self.start


def _plain() -> Any:
    torch.manual_seed(11)
    return _Net().eval()


def _load(folder: Path, plan_of: PlanOf, home: str, device: int | str, **figures: Any) -> Any:
    save_file(_plain().state_dict(), folder / "m.safetensors")
    with torch.device("meta"):
        model = _Net()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    plan = plan_of(inventory, lambda _: (home, device), no_split_module_classes=("_Block",), **figures)
    return load_model(model, plan, inventory)


@pytest.fixture(params=["disk-cpu", "disk-slots", "disk-sim", "cpu-sim", "parts-sim"])
def streamed(
    request: pytest.FixtureRequest, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Run from the mapped file, read into slots on the CPU.

    And through the ring to a simulated device, whole and in parts.
    """
    home, device = request.param.split("-")
    if device == "slots":
        monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
    if device != "sim":
        yield _load(tmp_path, plan_of, home, "cpu")
        return
    with simulated_devices({0: "1MB"}):
        figures = {"host_memory_bytes": 256} if home == "parts" else {}
        yield _load(tmp_path, plan_of, "disk" if home == "parts" else home, 0, **figures)


_X = torch.linspace(-1, 1, 16).view(2, 8)


def _device(model: Any) -> torch.device:
    weight = model.blocks[3].inner.weight
    assert isinstance(weight, torch.Tensor)
    return weight.device


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "use",
    [
        lambda model, x: model.blocks[3].inner(x),
        lambda model, x: functional.linear(x, model.blocks[3].inner.weight),
        lambda model, x: model.blocks[3].inner.weight.sum() + x.sum(),
        lambda model, x: model.blocks[3].gain.expand(2, 8) * x,
        lambda model, x: x * model.start + model.scale,
        lambda model, x: model.blocks[3](x),
    ],
    ids=["leaf", "linear", "sum", "view", "split", "block"],
)
def test_weights_used_without_their_blocks_forward_have_their_own_numbers(
    streamed: Any, use: Callable[..., torch.Tensor], when: str
) -> None:
    with torch.no_grad():
        if when == "after":
            streamed(_X)
        want = use(_plain(), _X)
        for _ in range(2):
            torch.testing.assert_close(
                use(streamed, _X.to(_device(streamed))).cpu(), want, atol=1e-6, rtol=1e-6
            )
        torch.testing.assert_close(streamed(_X), _plain()(_X), atol=1e-6, rtol=1e-6)


def test_other_parts_of_the_model_may_be_used_in_the_middle_of_a_block(streamed: Any) -> None:
    def more(net: Any) -> Callable[..., torch.Tensor]:
        return lambda _m, args, out: out + net.blocks[4].inner(args[0]) * net.blocks[0].gain * net.start

    plain = _plain()
    for net in (plain, streamed):
        net.blocks[2].register_forward_hook(more(net))
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(streamed(_X), plain(_X), atol=1e-5, rtol=1e-5)


def test_a_part_of_a_block_called_with_an_input_elsewhere_raises_with_its_name(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, "disk", 0)
        for call in (
            lambda: model.blocks[3].inner(_X),
            lambda: functional.linear(_X, model.blocks[3].inner.weight),
        ):
            with pytest.raises(
                StreamError, match=r"'blocks\.3\.inner\.weight' is streamed to sim:0, .* tensor on cpu"
            ):
                call()


@pytest.mark.parametrize(
    "keep",
    [
        lambda module: module.weight,
        lambda module: module.weight.t(),
        lambda module: module.weight.detach()[2:],
        lambda module: module.bias.data,
    ],
    ids=["parameter", "view", "detached", "data"],
)
def test_a_weight_that_a_hook_keeps_stays_what_it_was(
    streamed: Any, keep: Callable[[Any], torch.Tensor]
) -> None:
    kept: list[torch.Tensor] = []
    handle = streamed.blocks[1].inner.register_forward_hook(lambda module, *_: kept.append(keep(module)))
    with torch.no_grad():
        streamed(_X)
        handle.remove()
        for _ in range(3):
            torch.testing.assert_close(streamed(_X), _plain()(_X), atol=1e-6, rtol=1e-6)
        assert torch.equal(kept[0].cpu(), keep(_plain().blocks[1].inner))
    stats = streamed.devmap.stats()
    mapped = type(next(iter(streamed.devmap.engine.lanes.values()))).__name__ == "MappedLane"
    assert (
        stats.given_away > 0
    ) is not mapped  # a reader's last reference to a slab can make it one more than the hook did


def test_an_output_that_is_a_view_of_a_weight_stays_what_it_was(streamed: Any) -> None:
    streamed.blocks[1].register_forward_hook(lambda module, *_: module.gain.expand(2, 8))
    plain = _plain()
    plain.blocks[1].register_forward_hook(lambda module, *_: module.gain.expand(2, 8))
    seen: list[torch.Tensor] = []
    streamed.blocks[1].register_forward_hook(lambda _m, _a, out: seen.append(out))
    with torch.no_grad():
        torch.testing.assert_close(streamed(_X), plain(_X), atol=1e-6, rtol=1e-6)
        assert torch.equal(seen[0].cpu(), plain.blocks[1].gain.expand(2, 8))


def test_keeping_the_weights_of_block_after_block_raises_with_a_name_before_memory_is_gone(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, "disk", 0)
        kept: list[torch.Tensor] = []
        for block in model.blocks:
            block.inner.register_forward_hook(lambda module, *_: kept.append(module.weight))
        with pytest.raises(StreamError, match=r"weights of 'blocks\.4' .* kept beyond their forward"):
            model(_X)
        for weight, block in zip(kept, _plain().blocks, strict=False):
            assert torch.equal(weight.cpu(), block.inner.weight)


def test_another_thread_that_reads_a_weight_while_its_block_runs_gets_its_numbers(streamed: Any) -> None:
    """It may get hold of the slot's own parameter.

    And use it when the block has left and the slot been filled anew.
    """
    got: list[torch.Tensor] = []
    plain = _plain()

    def look(module: Any, *_: Any) -> None:
        def read() -> None:
            got.extend([module.inner.weight, streamed.blocks[5].inner.weight * 1, streamed.start * 1])

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()

    handle = streamed.blocks[1].register_forward_hook(look)
    with torch.no_grad():
        streamed(_X)
        handle.remove()
        for _ in range(2):
            torch.testing.assert_close(streamed(_X), plain(_X), atol=1e-6, rtol=1e-6)
        for tensor, want in zip(
            got, [plain.blocks[1].inner.weight, plain.blocks[5].inner.weight, plain.start], strict=True
        ):
            assert torch.equal(tensor.cpu(), want)


def test_a_weight_directly_on_a_split_module_is_read_once_and_kept(streamed: Any) -> None:
    with torch.no_grad():
        for _ in range(3):
            streamed(_X)
        assert streamed.devmap.stats().fetched_bytes == 9 * 4
        streamed.devmap.trim()
        streamed(_X)
        assert streamed.devmap.stats().fetched_bytes == 2 * 9 * 4
        with pytest.raises(StreamError, match="'start' is streamed and cannot be written"):
            streamed.start.add_(1)
        torch.testing.assert_close(streamed(_X), _plain()(_X), atol=1e-6, rtol=1e-6)
