"""The line of tensors says the same as walks over names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.errors import InventoryError
from devmap.inventory.flat_index import FlatIndex, over, value_at
from tests.planning.planning_models import inventories

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory


def below(path: str, name: str) -> bool:
    return not path or name == path or name.startswith(f"{path}.")


@given(inventories())
def test_spans_and_children_are_what_the_names_say(inventory: Inventory) -> None:
    line = inventory.flat_index
    for path in inventory.modules:
        start, end = line.span(path)
        assert list(line.tensors[start:end]) == [name for name in inventory.tensors if below(path, name)]
        assert (
            tuple(line.modules[child] for child in line.children(line.place[path]))
            == inventory.children[path]
        )
        own = line.tensors[line.first[line.place[path]] : line.first[line.place[path] + 1]]
        assert own == tuple(tensor.name for tensor in inventory.own_tensors[path])
    for at, name in enumerate(inventory.tensors):
        assert line.span(name) == (at, at + 1)


@settings(max_examples=200)
@given(st.data())
def test_runs_tell_for_every_tensor_the_longest_path_above_it(data: st.DataObject) -> None:
    inventory = data.draw(inventories())
    paths = data.draw(
        st.lists(
            st.sampled_from([*inventory.modules, *inventory.tensors, "absent", "absent.weight"]), unique=True
        )
    )
    runs = inventory.flat_index.runs(paths)
    assert [0, *(run.end for run in runs)] == [*(run.start for run in runs), len(inventory.tensors)]
    assert all(run.start < run.end for run in runs)
    for at, name in enumerate(inventory.tensors):
        nearest = max((path for path in paths if below(path, name)), key=len, default=None)
        assert value_at(runs, at) == nearest
    ends = st.sets(st.integers(0, len(inventory.tensors)), min_size=2, max_size=2)
    start, end = sorted(data.draw(ends, "stretch"))
    parts = list(over(runs, start, end))
    assert [at for low, high, _ in parts for at in range(low, high)] == list(range(start, end))
    assert all(value_at(runs, low) == path for low, _, path in parts)


def test_tensors_apart_from_their_modules_are_refused() -> None:
    with pytest.raises(InventoryError, match=r"'a\.x' is listed apart from its module"):
        FlatIndex.of(["", "a", "b"], ["b.x", "a.x"])
    with pytest.raises(InventoryError, match=r"'c\.x' is listed apart from its module"):
        FlatIndex.of(["", "a"], ["a.x", "c.x"])
