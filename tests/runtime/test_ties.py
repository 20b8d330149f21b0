"""Tied weights among streamed blocks.

Held, read and written once where there is room, and right in any case.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from devmap.config.values.device import parse_device
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Charge, DeviceUse
from devmap.runtime.dispatch import dispatch
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_TABLE = 4 * 30 * 6
_LAYER = 4 * (6 * 6 + 6)


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(30, 6))
        self.bias = nn.Parameter(torch.randn(30))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.table, self.bias)


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6)
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.head = _Head()
        tied = self.embed.weight
        assert isinstance(tied, nn.Parameter)
        self.head.table = tied

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        result: torch.Tensor = self.head(x)
        return result


def _net() -> Any:
    torch.manual_seed(2)
    return _Net().eval()


_IDS = torch.tensor([[1, 5, 29, 0]])


def _charged(slots: int) -> dict[str, Any]:
    return {"devices": (DeviceUse(parse_device(0), 10_000, 0, (Charge("slots", slots),)),)}


@pytest.mark.parametrize(
    ("charged", "is_kept", "slots"),
    [
        (2 * (_TABLE + 120), True, _TABLE + 2 * _LAYER),
        (_TABLE + _LAYER, True, _TABLE + _LAYER),
        (_TABLE + 2 * _LAYER, True, _TABLE + 2 * _LAYER),
        (_TABLE + 130, False, _TABLE + 120),
    ],
    ids=["two slots", "one slot", "table and two small slots", "too little"],
)
def test_a_weight_that_two_streamed_blocks_share_stays_on_the_device_within_what_is_charged_for_slots(
    charged: int, is_kept: bool, slots: int, tmp_path: Path, plan_of: PlanOf
) -> None:
    plan = plan_of(_net(), lambda _: ("disk", 0), offload_folder=str(tmp_path), **_charged(charged))
    with simulated_devices({0: 10_000}) as devices, torch.no_grad():
        model: Any = dispatch(_net(), plan)
        for _ in range(3):
            torch.testing.assert_close(model(_IDS), _net()(_IDS), atol=1e-6, rtol=1e-6)
        stats = model.devmap.stats()
        assert stats.slot_bytes == {0: slots}
        assert slots <= charged
        assert devices[0].ledger.held_bytes == slots
        assert isinstance(model.head.table, nn.Parameter)
        assert model.head.table is model.embed.weight
        per_pass = 3 * _LAYER + 120 + (0 if is_kept else 2 * _TABLE)
        assert stats.streamed_bytes <= 4 * per_pass
        stored = model.state_dict()
        assert all(torch.equal(stored[name].cpu(), value) for name, value in _net().state_dict().items())
        del stored
        model.devmap.remove()
        assert model.head.table is model.embed.weight
        assert torch.equal(model(_IDS), _net()(_IDS))
        gc.collect()
        assert devices[0].ledger.held_bytes == 0


@pytest.mark.parametrize("device", [0, "cpu"])
def test_a_tied_weight_is_written_to_the_offload_folder_once(
    device: Any, tmp_path: Path, plan_of: PlanOf
) -> None:
    plan = plan_of(_net(), lambda _: ("disk", device), offload_folder=str(tmp_path))
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model: Any = dispatch(_net(), plan)
        torch.testing.assert_close(model(_IDS), _net()(_IDS), atol=1e-6, rtol=1e-6)
        names = [name for path in tmp_path.iterdir() for name in read_headers(path).tensors]
        assert sorted(names) == sorted(name for name, _ in _net().named_parameters())


def test_a_weight_tied_to_a_resident_of_its_device_is_not_streamed(tmp_path: Path, plan_of: PlanOf) -> None:
    plan = plan_of(
        _net(), lambda path: (0, 0) if path == "embed" else ("disk", 0), offload_folder=str(tmp_path)
    )
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model: Any = dispatch(_net(), plan)
        torch.testing.assert_close(model(_IDS), _net()(_IDS), atol=1e-6, rtol=1e-6)
        assert model.devmap.stats().streamed_home_bytes == {"disk": 3 * _LAYER + 120}
        assert model.head.table is model.embed.weight


def test_a_converted_weight_that_two_blocks_in_host_memory_share_is_held_once(plan_of: PlanOf) -> None:
    plan = plan_of(_net(), lambda _: ("cpu", 0), dtype="bfloat16", **_charged(_TABLE // 2 + 70))
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model: Any = dispatch(_net(), plan)
        homes = [block.home for block in model.devmap.blocks if block.path in {"embed", "head"}]
        assert len({home.tensor("embed.weight").data_ptr() for home in homes}) == 1
        torch.testing.assert_close(model(_IDS), _net().bfloat16()(_IDS), atol=1e-2, rtol=1e-2)
