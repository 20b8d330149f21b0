from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devmap.inventory.model import Inventory, Tensor
from devmap.plan.fold import covers, fold_device_map, runs_of

NAMES = ["layers.1.a", "layers.1.b", "layers.10.a", "layers.10.b", "norm.w", "layer.w"]


def inventory() -> Inventory:
    modules = {"": "M", "layers": "L", "layers.1": "B", "layers.10": "B", "norm": "N", "layer": "X"}
    return Inventory(modules, {name: Tensor(name, (1,), "uint8") for name in NAMES})


@given(st.lists(st.integers(0, 1), min_size=len(NAMES), max_size=len(NAMES)))
def test_a_folded_map_says_the_same_of_every_tensor_and_no_key_covers_another(values: list[int]) -> None:
    given_values = dict(zip(NAMES, values, strict=True))
    folded = fold_device_map(runs_of(values), inventory())
    assert {name: covers(folded, name) for name in NAMES} == given_values
    assert not any(
        key != other and (not key or other.startswith(f"{key}.")) for key in folded for other in folded
    )


def test_one_device_folds_to_the_root() -> None:
    assert fold_device_map(runs_of(["cpu"] * len(NAMES)), inventory()) == {"": "cpu"}


def test_what_no_run_holds_gets_no_key_and_none_above_it() -> None:
    assert fold_device_map([(1, 5, 0)], inventory()) == {"layers.1.b": 0, "layers.10": 0, "norm": 0}
    assert fold_device_map([], inventory()) == {}
