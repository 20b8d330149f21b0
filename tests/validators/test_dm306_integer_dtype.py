"""DM306 integer-dtype: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.inventory.model import Inventory, Tensor

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf, FindingsOf


def test_a_cast_to_float8_is_a_warning_unless_the_checkpoint_holds_it(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    text = (
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float8_e4m3fn}\nmax_memory: {0: 2GB}\n"
    )
    name = "model.layers.0.mlp.up_proj.weight"
    quantised = dataclasses.replace(
        example, tensors={**example.tensors, name: Tensor(name, (8, 8), "float8_e4m3fn")}
    )
    assert findings_of(context_of(text, inventory=quantised), "DM306") == ()
    for known in ({}, {"inventory": None, "plan": None}):
        (finding,) = findings_of(context_of(text, **known), "DM306")
        assert (finding.severity, finding.help) == (
            "warning",
            "use a checkpoint that was quantised with scales, or bfloat16",
        )
