"""How a module tree is divided among stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from devmap.distributed.parts import Parts, find_parts
from devmap.errors import UsageError
from devmap.runtime.storage.module_scan import scan_module

if TYPE_CHECKING:
    from collections.abc import Mapping


class Block(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer_idx = index
        self.up = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.up(x)
        return found


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("bias", torch.zeros(2))
        self.register_buffer("table", torch.zeros(2), persistent=False)
        self.blocks = nn.ModuleList(Block(index) for index in range(3))
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        found: torch.Tensor = self.act(x * self.scale)
        return found


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 2)
        self.stack = Stack()
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.stack(self.embed(x)))
        return found


def divided(assignment: Mapping[str, int], no_split: tuple[str, ...] = ("Block",)) -> Parts:
    return find_parts(scan_module(Model()), assignment, no_split)


ASSIGNED = {"embed": 0, "stack": 0, "stack.blocks.2": 1, "head": 1}


def test_the_longest_prefix_decides() -> None:
    assert [(part.path, part.stage) for part in divided(ASSIGNED).parts] == [
        ("embed", 0),
        ("stack.blocks.0", 0),
        ("stack.blocks.1", 0),
        ("stack.blocks.2", 1),
        ("head", 1),
    ]


def test_a_stack_of_blocks_on_one_stage_stays_outer_code() -> None:
    whole = {"embed": 0, "stack": 0, "head": 1}
    assert "stack.blocks.1" in [part.path for part in divided(whole).parts]
    assert [part.path for part in divided(whole, ()).parts] == ["embed", "stack", "head"]


def test_tensors_of_outer_modules_are_told_apart() -> None:
    found = {place.name: (place.stage, place.is_outer) for place in divided(ASSIGNED).tensors}
    assert found["stack.scale"] == (0, True)
    assert found["stack.bias"] == (0, True)
    assert found["stack.blocks.2.up.weight"] == (1, False)
    assert "stack.table" not in found, "what is computed is on every rank"


def test_a_part_knows_the_layers_of_the_cache_that_it_writes() -> None:
    assert [part.layers for part in divided(ASSIGNED).parts] == [(), (0,), (1,), (2,), ()]


def test_a_tied_name_without_a_stage_goes_with_the_first() -> None:
    parts = divided({"embed": 1, "stack": 0})
    assert parts.parts[-1].path == "head"
    assert parts.parts[-1].stage == 1


def test_a_tie_is_known_under_its_first_name() -> None:
    owners = {place.name: place.owner for place in divided(ASSIGNED).tensors}
    assert owners["head.weight"] == "embed.weight"


def test_a_parameter_without_a_stage_is_named() -> None:
    with pytest.raises(UsageError, match=r"no stage is given for 'stack.blocks.0.up.weight'"):
        divided({"embed": 0, "stack.scale": 0, "stack.blocks.2": 1, "head": 1})
