"""DM220 unmapped-tensors: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.inventory.stored.mapping import WeightMapping

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_names_a_few(context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    mapping = WeightMapping({}, unmapped=("a.weight", "b.weight", "c.weight", "d.weight"))
    (finding,) = findings_of(
        context_of(TEXT, inventory=dataclasses.replace(example, mapping=mapping)), "DM220"
    )
    assert finding.path == ("model", "checkpoint")
    assert finding.message == (
        "the checkpoint holds 4 tensors (0 bytes) that no part of the "
        "model comes from: 'a.weight', 'b.weight', "
        "'c.weight' and 1 more"
    )


def test_tensors_that_the_model_ignores_are_no_finding(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    mapping = WeightMapping({}, ignored=("rotary_emb.inv_freq",))
    assert (
        findings_of(context_of(TEXT, inventory=dataclasses.replace(example, mapping=mapping)), "DM220") == ()
    )
