"""A small model that streams, with files behind it: for tests of what goes wrong around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from devmap.config.values.device import parse_device
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.plan.model import Placement, Plan
from devmap.runtime.dispatch import load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

WIDTH = 8
BLOCKS = 5


class Block(nn.Module):
    """A residual block; `during` is called in the middle of its forward."""

    during: Callable[[], None] | None = None

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, hidden)
        self.outer = nn.Linear(hidden, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.inner(x))
        if self.during is not None:
            self.during()
        result: torch.Tensor = x + self.outer(y)
        return result


class Net(nn.Module):
    """Blocks in an order that each call can choose."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(9 + size) for size in range(BLOCKS)])

    def forward(self, x: torch.Tensor, order: Sequence[int] | None = None) -> torch.Tensor:
        for index in order if order is not None else range(BLOCKS):
            x = self.blocks[index](x)
        return x


def plain_net() -> Net:
    """The same numbers every time."""
    torch.manual_seed(7)
    return Net().eval()


def save_net(folder: Path) -> Path:
    """Write its checkpoint, in two files."""
    folder.mkdir(exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in plain_net().state_dict().items()}
    for file, inside in (("inner", True), ("outer", False)):
        chosen = {name: tensor for name, tensor in state.items() if ("inner" in name) is inside}
        save_file(chosen, folder / f"{file}.safetensors")
    return folder


def load_net(folder: Path, home: int | str, executes: int | str, **figures: Any) -> Any:
    """The model with every block streamed from `home`."""
    with torch.device("meta"):
        model = Net().eval()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    placements = tuple(
        Placement(f"blocks.{index}", parse_device(home), parse_device(executes), 0) for index in range(BLOCKS)
    )
    figures = {"device_map": {}, "placements": placements, "devices": (), "strategy": "manual"} | figures
    return load_model(model, Plan(**figures), inventory)
