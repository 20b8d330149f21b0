"""Blocks that run on the CPU from the mapped file: memory, errors, and the way without such maps."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from devmap.errors import StreamError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.runtime.dispatch import load_model
from devmap.runtime.storage.page_cache import are_present, can_populate, populate, release
from devmap.runtime.streaming.lanes import Lane
from devmap.runtime.streaming.mapped_lanes import MappedLane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.runtime.conftest import PlanOf

# without it no MappedLane is ever made: blocks go through slots, as in the `slots` cases of
# test_streamed_llama.py
pytestmark = pytest.mark.skipif(not can_populate(), reason="needs MADV_POPULATE_READ: Linux 5.14")
_BLOCKS = 6
_BLOCK_BYTES = 4 * (32 * 32 + 32)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(32, 32) for _ in range(_BLOCKS)])

    def forward(self, x: torch.Tensor, order: Sequence[int] = range(_BLOCKS)) -> torch.Tensor:
        for index in order:
            x = torch.tanh(self.blocks[index](x))
        return x


def _plain() -> _Net:
    torch.manual_seed(3)
    return _Net().eval()


def _load(folder: Path, plan_of: PlanOf, **figures: Any) -> Any:
    save_file(_plain().state_dict(), folder / "m.safetensors")
    with torch.device("meta"):
        model = _Net()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    return load_model(model, plan_of(inventory, lambda _: ("disk", "cpu"), **figures), inventory)


def _lane(model: Any) -> Any:
    (lane,) = model.devmap.engine.lanes.values()
    return lane


_X = torch.linspace(-1, 1, 64).view(2, 32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(1, _BLOCKS + 1),
    orders=st.lists(st.lists(st.integers(0, _BLOCKS - 1), max_size=8), min_size=1, max_size=5),
    data=st.data(),
)
def test_windows_never_hold_more_than_host_memory_allows_and_results_are_right_in_every_order(
    most: int, orders: list[list[int]], data: st.DataObject, tmp_path: Path, plan_of: PlanOf
) -> None:
    model = _load(Path(mkdtemp(dir=tmp_path)), plan_of, host_memory_bytes=most * _BLOCK_BYTES)
    lane = _lane(model)
    assert isinstance(lane, MappedLane)
    assert lane.nbytes == min(most, _BLOCKS) * _BLOCK_BYTES
    held: list[int] = []
    for block in model.blocks:
        block.register_forward_hook(
            lambda *_: held.append(sum(window.is_held for window in lane._windows.values()))
        )
    with torch.no_grad():
        for order in orders:
            assert torch.equal(model(_X, order), _plain()(_X, order))
            if data.draw(st.booleans(), label="trim"):
                model.devmap.trim()
                assert not any(window.is_held for window in lane._windows.values())
    assert max(held, default=0) <= most


def test_a_file_that_was_damaged_and_then_replaced_by_another_is_mapped_anew(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    model = _load(tmp_path, plan_of)
    file = tmp_path / "m.safetensors"
    content = file.read_bytes()
    with torch.no_grad():
        want = model(_X)
        with file.open("r+b") as opened:
            opened.truncate(len(content) // 2)
        for _ in range(2):
            with pytest.raises(StreamError, match=rf"{file}.* byte [0-9,]+"):
                model(_X)
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(file)
        for _ in range(3):
            assert torch.equal(model(_X), want)


def test_what_a_forward_writes_to_its_weights_is_refused_and_lost(tmp_path: Path, plan_of: PlanOf) -> None:
    model = _load(tmp_path, plan_of)

    def write(module: nn.Module, _: object) -> None:
        for parameter in module.parameters():
            parameter.zero_()

    with torch.no_grad():
        handle = model.blocks[2].register_forward_pre_hook(write)
        with pytest.raises(StreamError, match=r"blocks\.2.* wrote to one of its weights"):
            model(_X)
        handle.remove()
        assert torch.equal(model(_X), _plain()(_X))


def test_without_such_maps_blocks_are_read_into_slots(
    tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
    for most in (1, 2, 9):
        model = _load(tmp_path, plan_of, host_memory_bytes=most * _BLOCK_BYTES)
        assert isinstance(_lane(model), Lane)
        assert model.devmap.stats().host_slot_bytes == min(most, 4) * _BLOCK_BYTES
        with torch.no_grad():
            for order in (range(_BLOCKS), [3, 3, 0], range(_BLOCKS)):
                assert torch.equal(model(_X, order), _plain()(_X, order))


def test_another_dtype_is_read_into_slots(tmp_path: Path, plan_of: PlanOf) -> None:
    model = _load(tmp_path, plan_of, dtype="float64")
    assert isinstance(_lane(model), Lane)
    with torch.no_grad():
        torch.testing.assert_close(model(_X.double()), _plain().double()(_X.double()))


@pytest.mark.filterwarnings(
    "ignore:Dynamo does not know how to trace:UserWarning"
)  # the hooks read the clock and take a lock
def test_a_compiled_model_runs_with_the_same_numbers(tmp_path: Path, plan_of: PlanOf) -> None:
    model = _load(tmp_path, plan_of)
    with torch.no_grad():
        compiled: Any = torch.compile(model, backend="eager")
        for _ in range(3):
            assert torch.equal(compiled(_X), _plain()(_X))
    assert model.devmap.stats().fetched_bytes == 0


def test_pages_come_and_go_and_a_file_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(5 * mmap.PAGESIZE))
    with path.open("r+b") as file:
        pages = torch.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8)
        populate(file.fileno(), 100, pages.data_ptr() + 100, 4 * mmap.PAGESIZE)
        assert are_present(pages.data_ptr() + 100, 4 * mmap.PAGESIZE)
        pages[mmap.PAGESIZE : 2 * mmap.PAGESIZE] = 0
        release(pages.data_ptr() + 1, 3 * mmap.PAGESIZE)
        assert pages.numpy().tobytes() == path.read_bytes()
        file.truncate(mmap.PAGESIZE)
        with pytest.raises(OSError, match=r"address|Bad"):
            populate(file.fileno(), 0, pages.data_ptr(), 5 * mmap.PAGESIZE)
