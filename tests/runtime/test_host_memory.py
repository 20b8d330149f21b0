"""`offload.host_memory`.

Blocks of any size within it, the pinned ring, what is said where pinning is refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from devmap.devices.backend import HostSlab
from devmap.devices.simulated import SimulatedBackend
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.runtime.dispatch import load_model
from devmap.runtime.streaming.host_budget import kept_in_cache, ring_shape, slot_count
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from tests.runtime.conftest import PlanOf

_WIDTH, _BLOCKS = 16, 4


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.down = nn.Linear(3 * _WIDTH, _WIDTH, bias=False)
        self.gain = nn.Parameter(torch.rand(_WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = x + self.gain * self.down(torch.tanh(self.up(x)))
        return result


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block() for _ in range(_BLOCKS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


_BLOCK_BYTES = 4 * (6 * _WIDTH * _WIDTH + 4 * _WIDTH)
_X = torch.linspace(-1, 1, 3 * _WIDTH).view(3, _WIDTH)


def _plain() -> Any:
    torch.manual_seed(4)
    return _Net().eval()


def _load(folder: Path, plan_of: PlanOf, home: str, device: int | str, **figures: Any) -> Any:
    save_file(_plain().state_dict(), folder / "m.safetensors")
    with torch.device("meta"):
        model = _Net()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    return load_model(
        model,
        plan_of(inventory, lambda _: (home, device), no_split_module_classes=("_Block",), **figures),
        inventory,
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limit=st.integers(128, 3 * _BLOCK_BYTES),
    home=st.sampled_from(["disk", "cpu"]),
    dtype=st.sampled_from([None, "float64", "bfloat16"]),
)
def test_a_block_of_any_size_streams_to_an_accelerator_within_any_host_memory(
    limit: int, home: str, dtype: str | None, tmp_path: Path, plan_of: PlanOf
) -> None:
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(Path(mkdtemp(dir=tmp_path)), plan_of, home, 0, host_memory_bytes=limit, dtype=dtype)
        assert 0 < model.devmap.stats().ring_bytes <= limit
        wanted = getattr(torch, dtype or "float32")
        for _ in range(2):
            torch.testing.assert_close(model(_X.to(wanted)), _plain().to(wanted)(_X.to(wanted)))
        assert model.devmap.stats().staged_bytes >= 2 * _BLOCKS * _BLOCK_BYTES * wanted.itemsize // 4
        model.devmap.remove()
        assert torch.equal(model(_X.to(wanted)), _plain().to(wanted)(_X.to(wanted)))


@pytest.mark.parametrize("can_map", [True, False])
def test_a_block_larger_than_host_memory_runs_on_the_cpu_module_by_module(
    can_map: bool, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_map:
        monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
        monkeypatch.setattr("devmap.runtime.preflight.can_populate", lambda: False)
    model = _load(tmp_path, plan_of, "disk", "cpu", host_memory_bytes=_BLOCK_BYTES // 2 + 200)
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(model(_X), _plain()(_X))
    assert model.devmap.stats().host_slot_bytes <= _BLOCK_BYTES // 2 + 200
    assert model.devmap.stats().order_misses <= 1
    stored = model.state_dict()
    assert all(torch.equal(stored[name], value) for name, value in _plain().state_dict().items())


def test_ring_and_blocks_on_the_cpu_share_host_memory(tmp_path: Path, plan_of: PlanOf) -> None:
    save_file(_plain().state_dict(), tmp_path / "m.safetensors")
    with torch.device("meta"):
        model: Any = _Net()
    inventory = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    limit = 4 * _BLOCK_BYTES
    with simulated_devices({0: "1MB"}), torch.no_grad():
        plan = plan_of(
            inventory,
            lambda path: ("disk", 0 if "0" in path or "1" in path else "cpu"),
            no_split_module_classes=("_Block",),
            host_memory_bytes=limit,
        )
        load_model(model, plan, inventory)
        stats = model.devmap.stats()
        assert stats.ring_bytes + stats.mapped_bytes + stats.host_slot_bytes <= limit
        torch.testing.assert_close(model(_X), _plain()(_X), atol=1e-6, rtol=1e-6)


def test_blocks_in_host_memory_go_through_the_pinned_ring_within_its_budget(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    with simulated_devices({0: "1MB"}), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        model = _load(tmp_path, plan_of, "cpu", 0, host_memory_bytes=_BLOCK_BYTES)
        model(_X)
        stats = model.devmap.stats()
        assert stats.ring_is_pinned
        assert 0 < stats.ring_bytes <= _BLOCK_BYTES
        assert stats.streamed_bytes >= stats.staged_bytes >= _BLOCKS * _BLOCK_BYTES
        assert (
            stats.file_bytes <= _BLOCKS * _BLOCK_BYTES
        )  # pages that were brought in while loading; none in the pass


@pytest.mark.parametrize("home", ["cpu", "disk"])
def test_where_pinning_is_refused_one_warning_says_so_and_copies_are_pageable(
    home: str, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: SimulatedBackend, nbytes: int) -> HostSlab:
        return HostSlab(torch.empty(nbytes, dtype=torch.uint8), is_pinned=False, reason="the system refused")

    monkeypatch.setattr(SimulatedBackend, "pinned_allocate", refuse)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        with pytest.warns(UserWarning, match="pageable memory.*the system refused") as said:
            model = _load(tmp_path, plan_of, home, 0)
        assert len(said) == 1
        for _ in range(2):
            torch.testing.assert_close(model(_X), _plain()(_X), atol=1e-6, rtol=1e-6)
        stats = model.devmap.stats()
        assert not stats.ring_is_pinned
        assert (stats.staged_bytes == 0) is (home == "cpu")


@pytest.mark.parametrize("home", ["cpu", "disk"])
def test_on_unified_memory_nothing_is_pinned_and_nothing_said(
    home: str, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SimulatedBackend, "pins", False)
    monkeypatch.setattr(
        SimulatedBackend,
        "pinned_allocate",
        lambda _, nbytes: HostSlab(torch.empty(nbytes, dtype=torch.uint8), is_pinned=False, reason="shared"),
    )
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, home, 0)
        torch.testing.assert_close(model(_X), _plain()(_X), atol=1e-6, rtol=1e-6)
        assert not model.devmap.stats().ring_is_pinned
        assert (model.devmap.stats().ring_bytes == 0) is (home == "cpu")


@given(largest=st.integers(1, 1 << 33), budget=st.integers(1 << 10, 1 << 34), rounds=st.booleans())
def test_a_ring_takes_no_more_than_its_budget_whatever_the_block(
    largest: int, budget: int, rounds: bool
) -> None:
    def taken(nbytes: int) -> int:
        return 1 << max(0, nbytes - 1).bit_length() if rounds else nbytes

    size, count = ring_shape(largest, budget, taken)
    assert count * taken(size) <= budget
    assert size <= largest + 63
    assert count >= 2 or size >= largest
    assert count * size <= 5 * largest + (4 << 26)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=40), st.integers(0, 3000))
def test_the_page_cache_keeps_all_that_fits_or_a_share_that_does(sizes: list[int], room: int) -> None:
    kept = list(kept_in_cache(sizes, room))
    total = sum(size for size, keeps in zip(sizes, kept, strict=True) if keeps)
    assert all(kept) if sum(sizes) <= 0.8 * room else total <= 0.8 * room + 1
    assert total > 0.8 * room - 2 * max(sizes) or all(kept)


def test_slots_are_counted_beside_what_is_kept() -> None:
    assert slot_count(0, 10) == 2
    assert slot_count(25, 10) == 2
    assert slot_count(25, 10, kept_bytes=8) == 1
    assert slot_count(5, 10) == 1
