"""Suggestions of paths: what is near, what is sure, and what a miss is explained by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.inventory.patterns import PathIndex
from devmap_validators.checks.suggestion import explain_miss, near_path, near_word, sure_path

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory


@pytest.mark.parametrize(
    ("key", "near", "sure"),
    [
        ("model.layer.0", "model.layers.0", "model.layers.0"),
        ("model.layrs[0-1]", "model.layers[0-1]", "model.layers[0-1]"),
        ("model.layers[4-7]", None, None),
        ("model.layers.40", None, None),
        ("layers.0", "model.layers.0", "model.layers.0"),
        ("model.model.norm", "model.norm", "model.norm"),
        ("lm_hed", "lm_head", "lm_head"),
        ("model.layers.0.mlp.p_proj", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
        ("model.layers.0.self_attn.p_proj", "model.layers.0.self_attn.v_proj", None),
        ("model.layr.0.self_atn.q_prj", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
        ("model.layers.*.atention", None, None),
        ("transformer.h.0", None, None),
        ("model.layers.9.mpl", None, None),
        (" .lm_head. ", "lm_head", None),
        ("model.layrs[7-9]", None, None),
        ("model.layrs[7-9].mlp", None, None),
    ],
)
def test_a_path_is_mended_segment_by_segment(
    key: str, near: str | None, sure: str | None, example: Inventory
) -> None:
    assert near_path(key, example.index) == near
    assert sure_path(key, example.index) == sure


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.layers.40", "'model.layers' has 0 to 3"),
        ("model.layers[4-7]", "'model.layers' has 0 to 3"),
        ("model.layer[0-1]", "'model' has embed_tokens, layers, norm, rotary_emb"),
        ("transformer.h.0", "the model has model, lm_head"),
        (
            "model.layers.0.attention.x",
            "'model.layers.0' has self_attn, mlp, input_layernorm, post_attention_layernorm",
        ),
        ("lm_head.weight.x", "'lm_head.weight' has nothing inside"),
        ("model.layers.0", ""),
    ],
)
def test_a_miss_is_explained_by_what_stands_there(key: str, said: str, example: Inventory) -> None:
    assert explain_miss(key, example.index) == said


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("LAYERS", ("Layers", "norm"), "Layers"),
        ("LAYERS", ("Layers", "layers"), "Layers"),
        ("emb", ("embed_tokens", "norm"), "embed_tokens"),
        ("em", ("embed_tokens", "norm"), None),
        ("emb", ("embed_tokens", "embed_positions"), None),
        ("x" * 201, ("x" * 201,), None),
        ("x" * 200, ("x" * 200,), "x" * 200),
        ("zzz", ("norm",), None),
    ],
)
def test_a_word_is_near_by_its_letters_or_by_its_beginning(
    word: str, known: tuple[str, ...], near: str | None
) -> None:
    assert near_word(word, known) == near


@pytest.mark.parametrize("key", ["model.*norms", "model.nor?s"])
def test_a_glob_is_never_taken_for_a_misspelt_word(key: str, example: Inventory) -> None:
    assert near_path(key, example.index) is None


def test_of_two_places_for_a_path_none_is_sure() -> None:
    index = PathIndex(["encoder.block.0", "decoder.block.0"])
    assert near_path("block.0", index) == "encoder.block.0"
    assert sure_path("block.0", index) is None


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["0", "1", "2"], "0 to 2"),
        (["2", "3"], "2 to 3"),
        (["0", "2"], "0, 2"),
        (["7"], "7"),
        (["0", "1", "w"], "0, 1, w"),
        (list("abcdef"), "a, b, c, d, e, f"),
        (list("abcdefgh"), "a, b, c, d, e, f and 2 more"),
    ],
)
def test_what_stands_there_is_listed_in_short(names: list[str], said: str) -> None:
    assert explain_miss("h.x", PathIndex([f"h.{name}" for name in names])) == f"'h' has {said}"
