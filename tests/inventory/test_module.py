from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from devmap.errors import InventoryError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.model import Inventory, Tensor
from devmap.inventory.stored.checkpoint import read_headers

if TYPE_CHECKING:
    from pathlib import Path


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("kept", torch.zeros(2, dtype=torch.int8))
        self.register_buffer("computed", torch.zeros(3), persistent=False)
        self.act = nn.ReLU()


class Model(nn.Module):
    _no_split_modules = ("Block",)

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.alias = self.blocks[1]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_registration_order_kinds_ties_and_shared_modules(device: str) -> None:
    with torch.device(device):
        found = Inventory.from_module(Model())
    block = ["scale", "kept", "computed", "inner.weight", "inner.bias"]
    assert list(found.tensors) == [
        "embed.weight",
        *[f"blocks.0.{name}" for name in block],
        *[f"blocks.1.{name}" for name in block],
        "head.weight",
        *[f"alias.{name}" for name in block],
    ]
    assert found.tensors["blocks.0.kept"] == Tensor("blocks.0.kept", (2,), "int8", "buffer")
    assert found.tensors["blocks.0.computed"] == Tensor(
        "blocks.0.computed", (3,), "float32", "buffer", persistent=False
    )
    assert found.ties == (
        ("embed.weight", "head.weight"),
        *[(f"blocks.1.{name}", f"alias.{name}") for name in block],
    )
    assert "blocks.0.act" not in found.modules
    assert list(found.modules.items())[:4] == [
        ("", "Model"),
        ("embed", "Embedding"),
        ("blocks", "ModuleList"),
        ("blocks.0", "Block"),
    ]
    assert found.no_split_module_classes == ("Block",)
    assert found.architecture is None


def test_views_of_one_storage_are_tied_only_where_they_are_the_same_stretch() -> None:
    model = nn.Module()
    whole = torch.zeros(4, 4)
    model.a = nn.Parameter(whole[:2])
    model.b = nn.Parameter(whole[:2])
    model.c = nn.Parameter(whole[2:])
    assert read_module(model).ties == (("a", "b"),)


def test_empty_models_and_roots_without_children_work() -> None:
    assert read_module(nn.ReLU()) == Inventory({"": "ReLU"}, {})
    found = read_module(nn.Linear(2, 3))
    assert list(found.modules) == [""]
    assert list(found.tensors) == ["weight", "bias"]
    assert read_module(nn.Sequential(nn.ReLU())).modules == {"": "Sequential"}


@pytest.mark.parametrize(
    "empty", [nn.ReLU(), nn.LayerNorm(2, elementwise_affine=False), nn.Sequential(nn.Identity())]
)
def test_modules_without_a_tensor_in_their_subtree_are_left_out(empty: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), empty, nn.Linear(2, 2))
    assert list(read_module(model).modules) == ["", "0", "2"]


@pytest.mark.parametrize("value", [None, ["Block", "Linear"], {"Linear", "Block"}])
def test_no_split_classes_are_read_from_a_list_a_set_or_none_of_any_submodule(value: object) -> None:
    model = nn.Sequential(Block(), nn.Linear(1, 1))
    model[0]._no_split_modules = value  # type: ignore[assignment]
    assert read_module(model).no_split_module_classes == (() if value is None else ("Block", "Linear"))


def test_a_lazy_module_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some versions of torch warn that lazy modules are new
        lazy = nn.LazyLinear(3)
    with pytest.raises(InventoryError, match="no shape yet"):
        read_module(nn.Sequential(lazy))


def test_a_chain_of_400_modules_is_read() -> None:
    model: nn.Module = nn.Linear(1, 1)
    for _ in range(400):
        model = nn.Sequential(model)
    assert next(iter(read_module(model).tensors)).count("0.") == 400


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_plain_module_is_matched_by_name_and_its_prefix_repaired(tmp_path: Path, prefix: str) -> None:
    model = Block()
    stored = {
        f"{prefix}{name}": tensor for name, tensor in model.state_dict().items() if name != "inner.bias"
    }
    stored[f"{prefix}scale"] = torch.zeros(2)
    save_file({**stored, "other": torch.zeros(1)}, tmp_path / "x.safetensors")
    inventory = read_module(model)
    found = match_checkpoint(inventory, read_headers(tmp_path), model)
    assert found == inventory
    assert found.mapping is not None
    assert set(found.mapping.pieces) == {"kept", "inner.weight"}
    assert found.mapping.missing == ("inner.bias",)
    assert found.mapping.unmapped == ("other",)
    assert [(wrong.name, wrong.expected, wrong.found) for wrong in found.mapping.mismatched] == [
        ("scale", (1,), (2,))
    ]
