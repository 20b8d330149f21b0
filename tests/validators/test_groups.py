"""Groups: whole modules where all of one is meant, at the bytes of the run dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.groups import fold

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory


def test_a_module_is_named_only_where_all_of_it_is_meant(example: Inventory) -> None:
    inside = [name for name in example.tensors if name.startswith("model.layers.1.")]
    assert [str(group) for group in fold(example, inside)] == ["'model.layers.1', 9 tensors, 404.8 MB"]
    assert [group.first for group in fold(example, inside[1:])][:1] != ["model.layers.1"]
    assert sum(len(group.tensors) for group in fold(example, inside[1:])) == len(inside) - 1
    assert [str(group) for group in fold(example, example.tensors)] == ["the whole model, 40 tensors, 1.9 GB"]


def test_bytes_are_those_of_the_run_dtype(example: Inventory) -> None:
    (stored,), (wider,) = (fold(example, ["model.norm.weight"], dtype=dtype) for dtype in (None, "float32"))
    assert wider.nbytes == 2 * stored.nbytes
