"""DM204 split-ties: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB, 1: 2GB}\n"
SHARED = (("model.layers.2.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),)


def test_it_names_the_copies_and_what_they_cost(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    tied = dataclasses.replace(example, ties=SHARED)
    (finding,) = findings_of(
        context_of(HEAD + "device_map: {'': 0, model.layers.3: 1}\n", inventory=tied), "DM204"
    )
    assert finding.path == ("device_map", "model.layers.3")
    assert finding.message == (
        "tied weights lie apart: 'model.layers.2.mlp.up_proj.weight' on device 0 and "
        "'model.layers.3.mlp.up_proj.weight' on device 1; "
        "the copy costs 90.2 MB"
    )


def test_every_group_is_named_wherever_it_stands_among_others_at_the_run_dtype(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    norms = tuple(f"model.layers.{layer}.input_layernorm.weight" for layer in range(4))
    tied = dataclasses.replace(example, ties=(*example.ties, *SHARED, norms))
    text = (
        HEAD.replace("yaml}", "yaml, dtype: float32}")
        + "device_map: {'': 0, lm_head: 1, 'model.layers[1-3]': 1, model.layers.2: 0}\n"
    )
    found = findings_of(context_of(text, inventory=tied), "DM204", "DM213")
    assert [(finding.code, finding.path[1], finding.message) for finding in found] == [
        ("DM213", "lm_head", found[0].message),
        (
            "DM204",
            "model.layers.2",
            (
                "tied weights lie apart: 'model.layers.0.input_layernorm.weight' on device 0 and "
                "'model.layers.1.input_layernorm.weight' on "
                "device 1 and 'model.layers.2.input_layernorm.weight' on device 0; the copy costs 16,384 "
                "bytes"
            ),
        ),
        (
            "DM204",
            "model.layers.2",
            (
                "tied weights lie apart: 'model.layers.2.mlp.up_proj.weight' on device 0 and "
                "'model.layers.3.mlp.up_proj.weight' on device 1; the copy costs 180.4 MB"
            ),
        ),
    ]


def test_each_device_beyond_the_first_is_a_copy(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    norms = tuple(f"model.layers.{layer}.input_layernorm.weight" for layer in range(3))
    tied = dataclasses.replace(example, ties=(norms,))
    text = (
        HEAD.replace("1: 2GB}", "1: 2GB, cpu: 2GB}")
        + "device_map: {'': 0, model.layers.1: 1, model.layers.2: cpu}\n"
    )
    (finding,) = findings_of(context_of(text, inventory=tied), "DM204")
    assert finding.message.endswith(
        "'model.layers.2.input_layernorm.weight' on cpu; the 2 copies cost 16,384 bytes"
    )


def test_it_is_silent_where_a_strategy_decides(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    tied = dataclasses.replace(example, ties=SHARED)
    assert (
        findings_of(context_of(HEAD + "device_map: {'': auto, model.layers.3: 1}\n", inventory=tied), "DM204")
        == ()
    )


def test_it_leaves_heads_and_embeddings_to_dm213(context_of: ContextOf, findings_of: FindingsOf) -> None:
    found = findings_of(context_of(HEAD + "device_map: {'': 0, lm_head: 1}\n"), "DM204", "DM213")
    assert [finding.code for finding in found] == ["DM213"]


def test_a_shared_decoder_is_no_head_unless_an_embedding_is_tied_to_it(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    text = HEAD + "device_map: {'': 0, lm_head: 1}\n"
    for other, codes in {"model.embed_tokens.weight": ["DM213"], "model.norm.weight": ["DM204"]}.items():
        tied = dataclasses.replace(example, ties=((other, "lm_head.weight"),))
        assert [
            finding.code for finding in findings_of(context_of(text, inventory=tied), "DM204", "DM213")
        ] == codes
