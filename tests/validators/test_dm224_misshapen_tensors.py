"""DM224 misshapen-tensors: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.inventory.stored.mapping import Mismatch, WeightMapping

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_names_the_first_and_counts_the_others(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    wrong = tuple(Mismatch(name, (4096,), (2048,)) for name in ("model.norm.weight", "lm_head.weight"))
    mapped = dataclasses.replace(example, mapping=WeightMapping({}, mismatched=wrong))
    (finding,) = findings_of(context_of(TEXT, inventory=mapped), "DM224")
    assert finding.path == ("model", "checkpoint")
    assert finding.message == (
        "'model.norm.weight' is [4096] in the model and [2048] in the checkpoint, and 1 other tensor in "
        "another shape too"
    )


def test_it_is_silent_where_all_shapes_agree(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    assert (
        findings_of(
            context_of(TEXT, inventory=dataclasses.replace(example, mapping=WeightMapping({}))), "DM224"
        )
        == ()
    )
