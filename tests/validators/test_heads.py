"""Heads and embeddings: the tie that people know by name, as the families call its two sides."""

from __future__ import annotations

import pytest

from devmap.inventory.model import Inventory, Tensor
from devmap_validators.rules.map.ties import head_of, is_head_and_embedding


def tied(modules: dict[str, str]) -> Inventory:
    names = tuple(f"{path}.weight" for path in modules)
    return Inventory(
        {"": "Model", **modules}, {name: Tensor(name, (8, 8), "bfloat16") for name in names}, ties=(names,)
    )


@pytest.mark.parametrize(
    "head", ["lm_head", "embed_out", "proj_out", "output", "head", "score", "cls.predictions.decoder"]
)
@pytest.mark.parametrize(
    ("embedding", "class_name"),
    [
        ("model.embed_tokens", ""),
        ("embeddings.word_embeddings", "Embedding"),
        ("lookup", "GemmaScaledWordEmbedding"),
        ("transformer.wte", ""),
        ("shared", ""),
        ("tok_embeddings", ""),
    ],
)
def test_an_output_head_and_an_embedding_are_known_by_class_or_by_name(
    head: str, embedding: str, class_name: str
) -> None:
    for modules in ({embedding: class_name, head: "Linear"}, {head: "Linear", embedding: class_name}):
        inventory = tied(modules)
        (names,) = inventory.ties
        assert head_of(names) == f"{head}.weight"
        assert is_head_and_embedding(inventory, names)


def test_one_embedding_among_several_names_is_enough() -> None:
    inventory = tied({"encoder.norm": "RMSNorm", "shared": "Embedding", "lm_head": "Linear"})
    assert is_head_and_embedding(inventory, inventory.ties[0])


@pytest.mark.parametrize(
    "modules",
    [
        {
            "encoder.embed_tokens": "Embedding",
            "decoder.embed_tokens": "Embedding",
        },  # no head: the shared table of two stacks
        {"model.norm": "RMSNorm", "lm_head": "Linear"},  # no embedding
        {"head.up": "Linear", "model.embedder.down": "Linear"},  # the names are those of modules around them
        {"lm_head": "Embedding", "model.norm": "RMSNorm"},  # the head itself is not the other side
    ],
)
def test_other_ties_are_no_head_and_embedding(modules: dict[str, str]) -> None:
    inventory = tied(modules)
    assert not is_head_and_embedding(inventory, inventory.ties[0])


def test_without_a_head_the_last_name_stands_for_it() -> None:
    assert head_of(["a.weight", "b.weight", "c.weight"]) == "c.weight"


def test_a_tensor_that_is_called_like_a_head_is_none() -> None:
    assert not is_head_and_embedding(
        tied({"embed_tokens": "Embedding"}), ["embed_tokens.weight", "block.score"]
    )
