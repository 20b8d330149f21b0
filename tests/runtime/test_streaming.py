"""The engine, whatever the model does: orders, repeats, gradients, threads, errors."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from devmap.config.values.device import parse_device
from devmap.errors import StreamError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import load_model
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 8


class Block(nn.Module):
    """A residual block with a bias of an odd size and a buffer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(_WIDTH, hidden)
        self.outer = nn.Linear(hidden, _WIDTH, bias=False)
        self.register_buffer("scale", torch.rand(()) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.scale
        assert isinstance(scale, torch.Tensor)
        result: torch.Tensor = x + scale * self.outer(torch.tanh(self.inner(x)))
        return result


class Net(nn.Module):
    """Blocks in an order that each call can choose."""

    def __init__(self, hidden: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Linear(_WIDTH, _WIDTH)
        self.blocks = nn.ModuleList([Block(size) for size in hidden])
        self.last = nn.LayerNorm(_WIDTH)

    def forward(self, x: torch.Tensor, order: Sequence[int] | None = None) -> torch.Tensor:
        x = self.first(x)
        for index in order if order is not None else range(len(self.blocks)):
            x = self.blocks[index](x)
        result: torch.Tensor = self.last(x)
        return result


def _net(hidden: Sequence[int]) -> Any:
    torch.manual_seed(7)
    return Net(hidden).eval()


def _load(plain: Any, folder: Path, tiers: Sequence[tuple[Any, Any]], **figures: Any) -> Any:
    """`tiers` for first, each block, and last."""
    state = {name: tensor.contiguous() for name, tensor in plain.state_dict().items()}
    for file, inside in (("blocks", True), ("rest", False)):
        save_file(
            {name: tensor for name, tensor in state.items() if ("ner" in name or "out" in name) is inside},
            folder / f"{file}.safetensors",
        )
    with torch.device("meta"):
        model = Net([block.inner.out_features for block in plain.blocks]).eval()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    names = ["first", *(f"blocks.{index}" for index in range(len(plain.blocks))), "last"]
    placed = zip(names, tiers, strict=True)
    placements = tuple(
        Placement(name, parse_device(home), parse_device(on), 0) for name, (home, on) in placed
    )
    return load_model(
        model,
        Plan(**({"device_map": {}, "placements": placements, "devices": (), "strategy": "manual"} | figures)),
        inventory,
    )


_TIERS = st.sampled_from(
    [(0, 0), (1, 1), ("cpu", "cpu"), ("cpu", 0), ("cpu", 1), ("disk", 0), ("disk", 1), ("disk", "cpu")]
)
_fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@_fixtures
@given(data=st.data())
def test_every_split_over_devices_cpu_and_disk_gives_the_plain_models_output_in_every_order(
    data: st.DataObject, tmp_path: Path
) -> None:
    hidden = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6), label="hidden")
    plain = _net(hidden)
    tiers = data.draw(st.lists(_TIERS, min_size=len(hidden) + 2, max_size=len(hidden) + 2), label="tiers")
    orders = data.draw(
        st.lists(
            st.one_of(st.none(), st.lists(st.integers(0, len(hidden) - 1), max_size=8)),
            min_size=1,
            max_size=5,
        )
    )
    x = torch.randn(3, _WIDTH)
    with simulated_devices({0: "1MB", 1: "1MB"}), torch.no_grad():
        model = _load(plain, Path(mkdtemp(dir=tmp_path)), tiers, offload_buffers=data.draw(st.booleans()))
        there = x if model.devmap.hooks is not None else x.to(next(model.parameters()).device)
        for order in orders:
            torch.testing.assert_close(model(there, order).cpu(), plain(x, order), atol=1e-6, rtol=1e-6)
        stored = model.state_dict()
        assert all(torch.equal(stored[name].cpu(), value) for name, value in plain.state_dict().items())
        if model.devmap.hooks is None:
            model.to("cpu")
        else:
            model.devmap.remove()
        assert torch.equal(model(x), plain(x))


_DISK = [("cpu", "cpu"), *[("disk", "cpu")] * 6, ("cpu", "cpu")]
_SIM = [(0, 0), ("disk", 0), ("cpu", 0), ("disk", 0), (0, 0), ("disk", 0), ("disk", 0), (0, 0)]
_SIZES = [5, 6, 7, 8, 3, 9]


def _streamed_bytes(sizes: Sequence[int]) -> int:
    return sum((2 * _WIDTH * size + size) * 4 for size in sizes)


def test_the_second_pass_follows_the_recorded_order_and_wraps_round(tmp_path: Path) -> None:
    model = _load(_net(_SIZES), tmp_path, _DISK)
    for _ in range(4):
        model(torch.randn(1, _WIDTH))
    stats = model.devmap.stats()
    assert (stats.misses, stats.order_misses, stats.hits, stats.passes) == (0, 0, 24, 4)
    assert stats.mapped_bytes == 6 * (2 * _WIDTH * 9 + 9) * 4
    ahead = _streamed_bytes(_SIZES[:4])
    assert 4 * _streamed_bytes(_SIZES) <= stats.streamed_bytes <= 4 * _streamed_bytes(_SIZES) + ahead


def test_another_order_is_served_and_recorded_anew(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(plain, tmp_path, _SIM)
        x = torch.randn(1, _WIDTH)
        for order in (None, [5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], [0, 5], [0, 0, 5, 5], [1, 2, 1, 3, 1, 5]):
            torch.testing.assert_close(model(x, order), plain(x, order), atol=1e-6, rtol=1e-6)
        assert model.devmap.stats().order_misses > 0
        before = model.devmap.stats()
        for _ in range(3):
            model(x, [1, 2, 1, 3, 1, 5])
        assert model.devmap.stats().order_misses - before.order_misses <= 1


@pytest.mark.parametrize("tiers", [_DISK, _SIM], ids=["cpu", "sim"])
def test_an_adapter_on_top_of_frozen_streamed_blocks_trains_as_on_the_plain_model(
    tiers: Any, tmp_path: Path
) -> None:
    plain = _net(_SIZES).requires_grad_(False)
    x = torch.randn(4, _WIDTH)
    gradients = []
    with simulated_devices({0: "1MB"}):
        streamed = _load(plain, tmp_path, tiers)
        for model in (plain, streamed):
            torch.manual_seed(1)
            adapter = nn.Parameter(torch.randn(_WIDTH))
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for order in (None, [3, 1, 1, 0]):
                model(x * adapter, order).square().sum().backward()
            gradients.append(adapter.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-5)


def test_gradient_checkpointing_runs_blocks_again_in_backward(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    model = _load(plain, tmp_path, _DISK)
    gradients: list[torch.Tensor] = []
    for net in (plain, model):
        x = torch.ones(2, _WIDTH, requires_grad=True)
        y = x
        for block in net.blocks:
            y = torch.utils.checkpoint.checkpoint(block, y, use_reentrant=False)
        gradients += torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-6, rtol=1e-6)


def test_threads_at_once_and_one_after_another_get_right_results(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    model = _load(plain, tmp_path, _DISK)
    inputs = [torch.randn(2, _WIDTH) for _ in range(6)]
    with torch.no_grad():
        want = [plain(x) for x in inputs]
    got: dict[int, torch.Tensor] = {}

    def run(index: int) -> None:
        with torch.no_grad():
            for _ in range(5):
                got[index] = model(inputs[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(6)]
    for thread in threads[:3]:
        thread.start()
        thread.join()
    for thread in threads[3:]:
        thread.start()
    for thread in threads[3:]:
        thread.join()
    assert all(torch.equal(got[index], want[index]) for index in range(6))


def _twice(model: Any, x: torch.Tensor) -> None:
    """What was read ahead before the cause may carry the first pass."""
    model(x)
    model(x)


@pytest.mark.parametrize("tiers", [_DISK, [(0, 0), *[("disk", 0)] * 6, (0, 0)]], ids=["cpu", "sim"])
def test_a_read_error_in_a_pass_names_file_and_offset_and_the_model_works_when_its_cause_is_gone(
    tiers: Any, tmp_path: Path
) -> None:
    plain = _net(_SIZES)
    x = torch.randn(2, _WIDTH)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(plain, tmp_path, tiers)
        file = tmp_path / "blocks.safetensors"
        content = file.read_bytes()
        want = plain(x)
        torch.testing.assert_close(model(x), want, atol=1e-6, rtol=1e-6)
        with file.open("r+b") as opened:
            opened.truncate(8 + int.from_bytes(content[:8], "little") + 400)
        for _ in range(2):
            with pytest.raises(StreamError, match=rf"{file}.* byte [0-9,]+"):
                _twice(model, x)
        with file.open("r+b") as opened:
            opened.write(content)
        for _ in range(2):
            torch.testing.assert_close(model(x), want, atol=1e-6, rtol=1e-6)


def test_an_error_in_a_forward_leaves_the_slots_free(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    model = _load(plain, tmp_path, _DISK)
    for _ in range(6):
        with pytest.raises(RuntimeError, match="shapes"):
            model.blocks[2](torch.randn(3, _WIDTH + 1))
    x = torch.randn(2, _WIDTH)
    assert torch.equal(model(x), plain(x))


def test_a_block_inside_the_forward_of_another_gets_a_slot_of_its_own(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(plain, tmp_path, [(0, 0), *[("disk", 0)] * 6, (0, 0)])
        for net in (plain, model):
            for outer in range(3):
                net.blocks[outer].inner.register_forward_hook(
                    lambda _m, _a, out, net=net, inner=outer + 1: out + net.blocks[inner](_a[0]).sum()
                )
        x = torch.randn(2, _WIDTH)
        for _ in range(2):
            torch.testing.assert_close(model(x), plain(x), atol=1e-5, rtol=1e-5)


def test_inference_mode_works_in_turn_with_others(tmp_path: Path) -> None:
    plain = _net(_SIZES)
    x = torch.randn(2, _WIDTH)
    with simulated_devices({0: "1MB"}):
        model = _load(plain, tmp_path, _SIM)
        for _ in range(2):
            with torch.inference_mode():
                torch.testing.assert_close(model(x), plain(x), atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(model(x), plain(x), atol=1e-6, rtol=1e-6)
