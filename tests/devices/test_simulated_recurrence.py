"""Recurrent layers on simulated devices: torch's fused cells, which the CPU does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(6, 8, 2, batch_first=True),
    "LSTM both ways": lambda: nn.LSTM(6, 8, bidirectional=True),
    "LSTM without biases": lambda: nn.LSTM(6, 8, bias=False),
    "GRU": lambda: nn.GRU(6, 8, 2),
    "GRU without biases": lambda: nn.GRU(6, 8, bias=False),
    "RNN": lambda: nn.RNN(6, 8),
    "LSTM cell": lambda: nn.LSTMCell(6, 8),
    "GRU cell": lambda: nn.GRUCell(6, 8),
}


def first(output: object) -> torch.Tensor:
    found = output[0] if isinstance(output, tuple) else output
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_those_of_the_cpu(name: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]()
    values = torch.randn(3, 6) if name.endswith("cell") else torch.randn(4, 3, 6)
    wanted = first(layer(values))
    wanted.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    gradients = {key: parameter.grad for key, parameter in layer.named_parameters()}
    layer.zero_grad()
    with simulated_devices({0: "1MB"}, activations=False):
        layer.to("sim:0")
        found = first(layer(values.to("sim:0")))
        torch.testing.assert_close(found.cpu(), wanted)
        found.square().sum().backward()  # type: ignore[no-untyped-call]  # torch's own
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad.cpu(), gradients[key])
        layer.to("cpu")


def test_a_packed_sequence_runs_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(6, 8)
    packed = pack_padded_sequence(torch.randn(5, 3, 6), torch.tensor([5, 3, 2]))
    with torch.no_grad():
        wanted = layer(packed)[0].data
        with simulated_devices({0: "1MB"}, activations=False):
            layer.to("sim:0")
            # torch's stub leaves out that it takes what Tensor.to takes
            on_device = packed.to("sim:0")  # type: ignore[arg-type]
            torch.testing.assert_close(layer(on_device)[0].data.cpu(), wanted)
            layer.to("cpu")
