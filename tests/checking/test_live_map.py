"""The quick word that a device map fits a live module: never where the whole check finds an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import devmap
from devmap.checking.device_map import check_device_map
from devmap.checking.live_map import surely_fits
from devmap.errors import DeviceMapError, InventoryError
from devmap.inventory.model import Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping


VALUES: list[int | str] = [0, 0, 0, "0", "cuda:0", 1, "cpu", "xpu:0", "gpu"]


class Block(nn.Module):
    """What must be whole, where somebody says so."""


class Part(nn.Module):
    """What may be spread."""


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> nn.Module:
    """Modules with parameters, buffers, nothing at all, ties, and wishes at any depth."""
    with torch.device("meta"):
        module = draw(st.sampled_from([Block, Part]))()
        for name in draw(st.sets(st.sampled_from(["weight", "bias"]))):
            module.register_parameter(name, nn.Parameter(torch.empty(2)))
        for name in draw(st.sets(st.sampled_from(["scale", "steps"]))):
            module.register_buffer(name, torch.empty(2), persistent=draw(st.booleans()))
    if draw(st.integers(0, 9)) == 0:
        vars(module)["_no_split_modules"] = draw(st.sampled_from([["Block"], ["Part"], None]))
    if depth:
        for name in draw(st.lists(st.sampled_from("abc"), unique=True)):
            module.add_module(name, draw(trees(depth - 1)))
    children = [child for child in module.children() if getattr(child, "weight", None) is not None]
    if len(children) > 1 and draw(st.integers(0, 4)) == 0:
        children[1].weight = children[0].weight
    return module


def _full(model: nn.Module, device_map: Mapping[str, int | str], classes: list[str] | None) -> list[str]:
    try:
        check_device_map(Inventory.from_module(model), device_map, no_split_module_classes=classes)
    except DeviceMapError as error:
        return [problem.code for problem in error.problems]
    return []


@given(trees(), st.data())
def test_what_surely_fits_passes_the_whole_check(model: nn.Module, data: st.DataObject) -> None:
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    keys = data.draw(
        st.sets(st.sampled_from([*paths, *dict(model.named_parameters(remove_duplicate=False)), "nowhere"]))
    )
    keys |= data.draw(st.sampled_from([set(), {""}, set(paths)]))
    device_map: dict[str, int | str] = {key: data.draw(st.sampled_from(VALUES)) for key in sorted(keys)}
    classes = data.draw(st.sampled_from([None, [], ["Block"], ["Part", "Block"]]))
    problems = _full(model, device_map, classes)
    if surely_fits(model, device_map, classes):
        assert problems == []
    if problems:
        with pytest.raises(DeviceMapError) as caught:
            devmap.check_device_map(model, device_map, no_split_module_classes=classes)
        assert [problem.code for problem in caught.value.problems] == problems
    else:
        devmap.check_device_map(model, device_map, no_split_module_classes=classes)


def _llama(**figures: object) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=4,
                num_attention_heads=4,
                vocab_size=100,
                **figures,
            )
        )
    return model


def _by_block() -> dict[str, int | str]:
    blocks: dict[str, int | str] = {f"model.layers.{number}": number % 2 for number in range(4)}
    return {"model.embed_tokens": 0, **blocks, "model.norm": 1, "model.rotary_emb": 1, "lm_head": 1}


def test_a_real_models_usual_map_surely_fits() -> None:
    model = _llama()
    assert surely_fits(model, _by_block())
    assert surely_fits(model, {"": "cpu"})
    real = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3))
    assert surely_fits(real, {"0": 0, "2": 1})


def test_a_torn_block_is_not_passed_by_unless_its_class_may_be_spread() -> None:
    model = _llama()
    torn = {**_by_block(), "model.layers.1.mlp": 0}
    assert not surely_fits(model, torn)
    assert surely_fits(model, torn, [])
    assert not surely_fits(model, torn, ["LlamaMLP", "LlamaDecoderLayer"])


def test_a_wish_further_down_counts_for_what_was_passed_before() -> None:
    with torch.device("meta"):
        asks, block = nn.Module(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        asks.lin = nn.Linear(2, 2)
    vars(asks)["_no_split_modules"] = ["Sequential"]
    for order in ([block, asks], [asks, block]):
        model = nn.ModuleList(order)
        paths = {"0": 0, "1": 0, f"{order.index(block)}.1": 1}
        assert not surely_fits(model, paths)
        assert _full(model, paths, None) == ["DM203"]


def test_ties_are_left_to_the_whole_check() -> None:
    model = _llama(tie_word_embeddings=True)
    assert not surely_fits(model, _by_block())
    with pytest.raises(DeviceMapError, match="1 problem"):
        devmap.check_device_map(model, _by_block())
    devmap.check_device_map(model, {**_by_block(), "lm_head": 0})
    storage = torch.zeros(4)
    shares = nn.Module()
    shares.a, shares.b = (nn.Module() for _ in range(2))
    shares.a.weight, shares.b.weight = (nn.Parameter(storage[:]) for _ in range(2))
    assert not surely_fits(shares, {"a": 0, "b": 1})


def test_one_class_may_be_named_as_text() -> None:
    model = _llama()
    torn = {**_by_block(), "model.layers.1.mlp": 0}
    devmap.check_device_map(model, torn, no_split_module_classes="LlamaAttention")
    with pytest.raises(DeviceMapError):
        devmap.check_device_map(model, torn, no_split_module_classes="LlamaDecoderLayer")


def test_what_is_no_module_is_said_to_be_none() -> None:
    with pytest.raises(InventoryError, match=r"is not an nn\.Module"):
        devmap.check_device_map(nn.Linear, {"": 0})  # type: ignore[arg-type]  # what is tested
