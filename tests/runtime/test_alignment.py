"""What the code of a module that spans several devices may do with the results of its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import devmap
from devmap.config.model.placement_config import PlacementConfig
from devmap.runtime.alignment import _target
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Part(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch._C._len_torch_function_stack() == 0
        return torch.relu(self.inner(x))


class _Spread(nn.Module):
    """Joins what its parts give, adds a parameter of its own, writes into a buffer it makes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.bias = nn.Parameter(torch.ones(4))
        self.first = _Part()
        self.second = _Part()

    def forward(self, x: torch.Tensor, fails: torch.Tensor | None = None) -> torch.Tensor:
        first, second = self.first(x), self.second(x)
        joined = torch.cat([first, second]) + first.repeat(2, 1) * second.repeat(2, 1)
        if fails is not None:
            raise ValueError("as asked")
        room = torch.zeros(2, 4, device=x.device)
        room[torch.arange(2, device=second.device)] = second[:2]
        joined[:2] += room
        return torch.where(joined > 0, joined, self.bias)


@pytest.fixture
def spread() -> Iterator[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    model, x = _Spread(), torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(x)
    config = PlacementConfig.model_validate(
        {
            "version": 1,
            "model": {},
            "device_map": {"first": 0, "second": 1, "bias": 1},
            "max_memory": {0: "1MB", 1: "1MB"},
        }
    )
    with simulated_devices({0: "1MB", 1: "1MB"}):
        devmap.dispatch(model, devmap.resolve(config, devmap.Inventory.from_module(model)))
        yield model, x, wanted


def test_operands_of_its_own_code_meet_on_one_device(
    spread: tuple[nn.Module, torch.Tensor, torch.Tensor],
) -> None:
    model, x, wanted = spread
    with torch.no_grad():
        for device in ("cpu", "sim:0", "sim:1"):
            found = model(x.to(device))
            assert found.device == torch.device(device)
            torch.testing.assert_close(found.cpu(), wanted)


def test_an_error_leaves_no_alignment_behind(spread: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, wanted = spread
    with torch.no_grad():
        for _ in range(2):
            with pytest.raises(ValueError, match="as asked"):
                model(x, fails=x)
            assert torch._C._len_torch_function_stack() == 0
        torch.testing.assert_close(model(x).cpu(), wanted)
        with pytest.raises(RuntimeError, match="two devices"):
            torch.ones(2, device="sim:0") + torch.ones(2)


def test_gradients_flow_back_over_the_border(spread: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, _ = spread
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_removal_gives_the_plain_forward_back(spread: tuple[nn.Module, torch.Tensor, torch.Tensor]) -> None:
    model, x, wanted = spread
    model.devmap.remove()  # type: ignore[union-attr, operator]  # the handle
    assert "forward" not in model.__dict__
    with torch.no_grad():
        torch.testing.assert_close(model(x), wanted)


def test_a_number_on_a_device_beside_a_tensor_of_the_cpu_meets_it_there() -> None:
    with simulated_devices({0: "1MB"}):
        number, rows = torch.tensor(2.0, device="sim:0"), torch.ones(3)
        assert _target(torch.mul, (rows, number), {}) == torch.device("sim:0")
        assert _target(torch.mul, (number, rows), {}) == torch.device("sim:0")
        assert (
            _target(torch.mul, (rows.to("sim:0"), torch.tensor(2.0)), {}) is None
        )  # torch takes it as it is
