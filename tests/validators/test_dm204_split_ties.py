"""DM204 split-ties: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB, 1: 2GB}\n"
SHARED = (("model.layers.2.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight"),)


def test_it_names_the_copies_and_what_they_cost(context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    tied = dataclasses.replace(example, ties=SHARED)
    (finding,) = findings_of(context_of(HEAD + "device_map: {'': 0, model.layers.3: 1}\n", inventory=tied), "DM204")
    assert finding.path == ("device_map", "model.layers.3")
    assert finding.message == (
        "tied weights lie apart: 'model.layers.2.mlp.up_proj.weight' on device 0 and 'model.layers.3.mlp.up_proj.weight' on device 1; "
        "the copy costs 90.2 MB"
    )


def test_it_is_silent_where_a_strategy_decides(context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    tied = dataclasses.replace(example, ties=SHARED)
    assert findings_of(context_of(HEAD + "device_map: {'': auto, model.layers.3: 1}\n", inventory=tied), "DM204") == ()


def test_it_leaves_heads_and_embeddings_to_dm213(context_of: ContextOf, findings_of: FindingsOf) -> None:
    found = findings_of(context_of(HEAD + "device_map: {'': 0, lm_head: 1}\n"), "DM204", "DM213")
    assert [finding.code for finding in found] == ["DM213"]
