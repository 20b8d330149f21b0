"""Keys that are written in the names of the checkpoint."""

from __future__ import annotations

import pytest

from devmap.inventory.model import Inventory, Tensor
from devmap.inventory.stored.mapping import Piece, WeightMapping
from devmap.inventory.stored_names import runtime_path

_PAIRS = {
    "model.vision_tower.proj.weight": "vision_tower.proj.weight",
    "model.language_model.layers.0.mlp.up.weight": "language_model.model.layers.0.mlp.up.weight",
    "model.language_model.layers.1.mlp.up.weight": "language_model.model.layers.1.mlp.up.weight",
    "lm_head.weight": "language_model.lm_head.weight",
    "plain.weight": "plain.weight",
}
_MODULES = {
    name[:end]: "M"
    for name in _PAIRS
    for end in [0, *(place for place, character in enumerate(name) if character == ".")]
}
_LLAVA = Inventory(
    modules=_MODULES,
    tensors={name: Tensor(name, (2,), "float32") for name in _PAIRS},
    mapping=WeightMapping({name: (Piece(stored),) for name, stored in _PAIRS.items()}),
)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("language_model.model.layers.0", "model.language_model.layers.0"),
        ("language_model.model.layers[0-1]", "model.language_model.layers[0-1]"),
        ("language_model.model.layers.*.mlp", "model.language_model.layers.*.mlp"),
        ("language_model.lm_head", "lm_head"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower", "model.vision_tower"),
        ("plain", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_stored_name_leads_to_the_running_models(key: str, path: str | None) -> None:
    assert runtime_path(_LLAVA, key) == path


def test_without_a_mapping_nothing_is_known() -> None:
    assert runtime_path(Inventory({"": "M"}, {}), "language_model") is None
