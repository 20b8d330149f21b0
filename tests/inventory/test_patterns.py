from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from devmap.inventory.patterns import KeyKind, PathIndex, expand_keys, key_kind

from .trees import inventories

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

PATHS = [
    "",
    "model",
    "model.layers",
    *[f"model.layers.{number}" for number in (0, 1, 2, 10)],
    "model.layers.0.mlp",
    "model.layers.10.mlp",
    "lm_head",
]


def test_kinds_of_keys() -> None:
    assert [key_kind(key) for key in ("a.b", "a[0-3]", "a.*", "a[0-3].*")] == [
        KeyKind.LITERAL,
        KeyKind.RANGE,
        KeyKind.GLOB,
        KeyKind.GLOB,
    ]


def test_ranges_and_globs_name_what_is_there() -> None:
    index = PathIndex(PATHS)
    assert index.match("model.layers[1-10]") == ("model.layers.1", "model.layers.2", "model.layers.10")
    assert index.match("model.layers.*.mlp") == ("model.layers.0.mlp", "model.layers.10.mlp")
    assert index.match("model.layers.1?") == ("model.layers.10",)
    assert index.match("model.*.mlp") == ()
    assert index.match("model.layers[0-999999999]") == tuple(
        f"model.layers.{number}" for number in (0, 1, 2, 10)
    )
    assert index.match("") == ("",)


def test_the_longest_match_wins_and_among_equals_the_more_exact() -> None:
    found = expand_keys(
        ["", "model.layers[0-2]", "model.layers.1", "model.layers.*", "model.layers.0.mlp"], PathIndex(PATHS)
    )
    assert [
        found.winner(path)
        for path in (
            "lm_head",
            "model.layers.0",
            "model.layers.1",
            "model.layers.10.mlp",
            "model.layers.0.mlp",
        )
    ] == [
        "",
        "model.layers[0-2]",
        "model.layers.1",
        "model.layers.*",
        "model.layers.0.mlp",
    ]
    assert found.conflicts == ()


def test_equal_ranges_that_overlap_are_a_conflict_and_names_of_nothing_are_unmatched() -> None:
    found = expand_keys(["model.layers[0-1]", "model.layers[1-2]", "model.layer"], PathIndex(PATHS))
    assert found.conflicts == (("model.layers.1", "model.layers[0-1]", "model.layers[1-2]"),)
    assert found.unmatched == ("model.layer",)


@given(inventories(), st.data())
def test_a_literal_path_names_itself(inventory: Inventory, data: st.DataObject) -> None:
    index = inventory.index
    path = data.draw(
        st.sampled_from([path for path in [*inventory.modules, *inventory.tensors] if "[" not in path])
    )
    assert index.match(path) == (path,)
