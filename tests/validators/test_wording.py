"""Sentences that rules share: devices, bytes, blocks and ties in words."""

from __future__ import annotations

import pytest

from devmap.config.values.device import CPU, DISK, device_name, parse_device
from devmap.config.values.strategy import Strategy
from devmap.inventory.model import Inventory, Tensor
from devmap_validators.checks.wording import devices_in_words, exact_bytes, fold, fold_paths

FIRST, SECOND = parse_device(0), parse_device(1)


@pytest.mark.parametrize(
    ("target", "words"), [(SECOND, "device 1"), (CPU, "cpu"), (DISK, "disk"), (Strategy.BALANCED, "balanced")]
)
def test_a_target_of_a_map_in_a_sentence(target: object, words: str) -> None:
    assert device_name(target) == words


def test_devices_stand_in_tier_order_each_once() -> None:
    assert devices_in_words([]) == "none"
    assert devices_in_words([DISK]) == "disk"
    assert devices_in_words([DISK, CPU, FIRST, SECOND, FIRST]) == "device 0, device 1, cpu and disk"
    assert (
        devices_in_words([parse_device(index) for index in (64, 9, 3)]) == "device 3, device 9 and device 64"
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 byte"),
        (0, "0 bytes"),
        (999_999, "999,999 bytes"),
        (1_000_000, "1.0 MB"),
        (21_400_000_000, "21.4 GB"),
    ],
)
def test_few_bytes_are_said_exactly(count: int, words: str) -> None:
    assert exact_bytes(count) == words


def test_a_module_is_named_only_where_all_of_it_is_meant(example: Inventory) -> None:
    inside = [name for name in example.tensors if name.startswith("model.layers.1.")]
    assert [str(group) for group in fold(example, inside)] == ["'model.layers.1', 9 tensors, 404.8 MB"]
    assert [group.first for group in fold(example, inside[1:])][:1] != ["model.layers.1"]
    assert sum(len(group.tensors) for group in fold(example, inside[1:])) == len(inside) - 1
    assert [str(group) for group in fold(example, example.tensors)] == ["the whole model, 40 tensors, 1.9 GB"]


def test_bytes_are_those_of_the_run_dtype(example: Inventory) -> None:
    (stored,), (wider,) = (fold(example, ["model.norm.weight"], dtype=dtype) for dtype in (None, "float32"))
    assert wider.nbytes == 2 * stored.nbytes


def test_places_stand_in_the_order_of_the_model_whatever_order_they_are_asked_in(example: Inventory) -> None:
    names = [
        "lm_head.weight",
        *(name for name in example.tensors if name.startswith(("model.layers.3.", "model.layers.1."))),
    ]
    groups = fold(example, reversed(names))
    assert [group.first for group in groups] == ["model.layers.1", "model.layers.3", "lm_head"]
    assert list(groups[0].tensors) == [name for name in example.tensors if name.startswith("model.layers.1.")]


def test_a_module_that_lacks_one_tensor_is_told_by_its_parts(example: Inventory) -> None:
    names = [name for name in example.tensors if name != "model.layers.2.mlp.down_proj.weight"]
    said = [str(group).split(",")[0] for group in fold(example, names)]
    assert said == [
        "'model.embed_tokens'",
        "'model.layers.0' to 'model.layers.1'",
        "'model.layers.3'",
        "'model.layers.2.self_attn'",
        "'model.layers.2.mlp.gate_proj'",
        "'model.layers.2.mlp.up_proj'",
        "'model.layers.2.input_layernorm'",
        "'model.layers.2.post_attention_layernorm'",
        "'model.norm'",
        "'model.rotary_emb'",
        "'lm_head'",
    ]


def test_a_tied_tensor_counts_once_in_a_group_and_a_buffer_at_its_own_dtype(example: Inventory) -> None:
    assert [group.nbytes for group in fold(example, example.tensors)] == [example.nbytes]
    assert [group.nbytes for group in fold(example, ["model.rotary_emb.inv_freq"], dtype="float16")] == [256]


def test_modules_without_tensors_of_their_own_name_no_place() -> None:
    empty = Inventory(
        {"": "Net", "a": "List", "b": "Part"},
        {"b.w": Tensor("b.w", (2,), "int8"), "w": Tensor("w", (2,), "int8")},
    )
    assert [str(group) for group in fold(empty, ["w"])] == ["'w', 1 tensor, 2 B"]
    assert [str(group) for group in fold(empty, ["b.w"])] == ["'b', 1 tensor, 2 B"]
    assert [str(group) for group in fold(empty, ["w", "b.w"])] == ["the whole model, 2 tensors, 4 B"]
    assert fold(empty, []) == ()


@pytest.mark.parametrize(
    ("paths", "runs"),
    [
        (["h.0.mlp", "h.1.mlp", "h.0.attn", "h.1.attn"], [("h.0.mlp", "h.1.mlp"), ("h.0.attn", "h.1.attn")]),
        (["a.0", "b.1", "a.1"], [("a.0", "a.1"), ("b.1",)]),
        (["0.x", "x", "1.x"], [("0.x", "1.x"), ("x",)]),
        (["h.0.1", "h.1.1", "h.1.2"], [("h.0.1", "h.1.1"), ("h.1.2",)]),
        (["h.9", "h.10", "h.12"], [("h.9", "h.10"), ("h.12",)]),
    ],
)
def test_runs_count_up_by_one_in_one_place(paths: list[str], runs: list[tuple[str, ...]]) -> None:
    assert list(fold_paths(paths)) == runs
