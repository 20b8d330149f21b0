"""DM221 missing-tensors: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.inventory.stored.mapping import WeightMapping
from devmap_validators.checks.wording import fold

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

TEXT = "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: 2GB}\n"


def test_it_folds_what_is_missing(context_of: ContextOf, findings_of: FindingsOf, example: Inventory) -> None:
    missing = tuple(name for name in example.tensors if name.startswith(("model.layers.2", "model.layers.3")))
    mapped = dataclasses.replace(example, mapping=WeightMapping({}, missing=missing))
    (finding,) = findings_of(context_of(TEXT, inventory=mapped), "DM221")
    assert finding.path == ("model", "checkpoint")
    assert (
        finding.message == "the checkpoint lacks 'model.layers.2' to 'model.layers.3', 18 tensors, 809.5 MB"
    )


def test_it_is_silent_where_all_is_there(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    assert (
        findings_of(
            context_of(TEXT, inventory=dataclasses.replace(example, mapping=WeightMapping({}))), "DM221"
        )
        == ()
    )
    assert findings_of(context_of(TEXT), "DM221") == ()


def test_of_many_places_eight_are_named(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    every_other = tuple(example.tensors)[::2]
    mapped = dataclasses.replace(example, mapping=WeightMapping({}, missing=every_other))
    assert len(findings_of(context_of(TEXT, inventory=mapped), "DM221")) == 8
    assert len(fold(example, every_other)) > 8
