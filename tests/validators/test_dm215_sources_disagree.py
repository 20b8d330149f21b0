"""DM215 sources-disagree: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.inventory.model import Inventory, Tensor

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml, checkpoint: ./weights}\nmax_memory: {0: 2GB}\n"


def with_tensors(inventory: Inventory, tensors: dict[str, Tensor]) -> Inventory:
    return dataclasses.replace(inventory, tensors=tensors)


def test_it_names_a_tensor_that_differs(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    norm = example.tensors["model.norm.weight"]._replace(shape=(2048,), dtype="float16")
    other = with_tensors(example, {**example.tensors, norm.name: norm})
    (finding,) = findings_of(context_of(TEXT, checkpoint_inventory=other), "DM215")
    assert finding.path == ("model", "manifest")
    assert finding.message == (
        "1 tensor of the manifest differs from the checkpoint: 'model.norm.weight' is bfloat16[4096] "
        "there and "
        "float16[2048] in the checkpoint"
    )


def test_it_names_tensors_that_one_of_them_lacks(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    fewer = {
        name: tensor for name, tensor in example.tensors.items() if not name.startswith("model.layers.3")
    }
    found = findings_of(context_of(TEXT, checkpoint_inventory=with_tensors(example, fewer)), "DM215")
    assert [finding.message for finding in found] == [
        (
            "the checkpoint lacks 9 tensors of the manifest: 'model.layers.3.self_attn.q_proj.weight', "
            "'model.layers.3.self_attn.k_proj.weight', 'model.layers.3.self_attn.v_proj.weight' and 6 more"
        )
    ]
    more = {
        **example.tensors,
        "score.weight": example.tensors["model.norm.weight"]._replace(name="score.weight"),
    }
    found = findings_of(context_of(TEXT, checkpoint_inventory=with_tensors(example, more)), "DM215")
    assert [finding.message for finding in found] == [
        "the manifest lacks 1 tensor of the checkpoint: 'score.weight'"
    ]


def test_a_tied_name_that_the_checkpoint_does_not_store_is_no_difference(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    stored = with_tensors(
        example, {name: tensor for name, tensor in example.tensors.items() if name != "lm_head.weight"}
    )
    assert (
        findings_of(context_of(TEXT, checkpoint_inventory=dataclasses.replace(stored, ties=())), "DM215")
        == ()
    )
    assert findings_of(context_of(TEXT), "DM215") == ()


def test_all_kinds_of_differences_are_said_at_once_where_the_manifest_is_named(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    stored = {
        name: Tensor(name, tensor.shape, "float16", tensor.kind, persistent=tensor.persistent)
        for name, tensor in example.tensors.items()
        if name != "model.norm.weight"
    }
    other = with_tensors(example, {**stored, "score.weight": Tensor("score.weight", (2, 4096), "bfloat16")})
    found = findings_of(context_of(TEXT, checkpoint_inventory=other), "DM215")
    assert [(finding.path, finding.message, finding.help) for finding in found] == [
        (("model", "manifest"), message, "write the manifest again: devmap inspect CHECKPOINT -o MANIFEST")
        for message in (
            (
                "38 tensors of the manifest differ from the checkpoint: 'model.embed_tokens.weight' is "
                "bfloat16[32000, 4096] there and "
                "float16[32000, 4096] in the checkpoint"
            ),
            "the checkpoint lacks 1 tensor of the manifest: 'model.norm.weight'",
            "the manifest lacks 1 tensor of the checkpoint: 'score.weight'",
        )
    ]


def test_what_no_file_holds_is_no_difference(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    stored = {name: tensor for name, tensor in example.tensors.items() if tensor.persistent}
    assert len(stored) < len(example.tensors)
    assert findings_of(context_of(TEXT, checkpoint_inventory=with_tensors(example, stored)), "DM215") == ()


def test_a_manifest_may_leave_out_a_tied_name_that_the_checkpoint_stores(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    fewer = {name: tensor for name, tensor in example.tensors.items() if name != "lm_head.weight"}
    listed = dataclasses.replace(with_tensors(example, fewer), ties=())
    assert (
        findings_of(context_of(TEXT, inventory=listed, checkpoint_inventory=example, plan=None), "DM215")
        == ()
    )


def test_without_a_manifest_nothing_can_disagree(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    text = TEXT.replace("manifest: example.manifest.yaml, ", "")
    assert (
        findings_of(
            context_of(text, inventory=example, checkpoint_inventory=with_tensors(example, {})), "DM215"
        )
        == ()
    )
    unread = TEXT.replace("example", "no-such")
    assert findings_of(context_of(unread, checkpoint_inventory=example), "DM215") == ()
