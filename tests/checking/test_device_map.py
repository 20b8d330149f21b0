"""check_device_map: one error that lists every problem, or none."""

from __future__ import annotations

import pytest

from devmap.checking.device_map import check_device_map
from devmap.errors import DeviceMapError
from devmap.inventory.model import Inventory, Tensor

INVENTORY = Inventory(
    modules={"": "Model", "block": "Block", "block.up": "Linear", "block.down": "Linear", "head": "Linear"},
    tensors={
        name: Tensor(name, (1000,), "float32")
        for name in ("block.up.weight", "block.down.weight", "head.weight")
    },
    no_split_module_classes=("Block",),
)


def test_a_map_that_fits_passes() -> None:
    check_device_map(INVENTORY, {"block": 0, "head": "cpu"}, max_memory={0: "8KB", "cpu": 4000})


def test_one_error_lists_every_problem() -> None:
    with pytest.raises(DeviceMapError) as caught:
        check_device_map(
            INVENTORY, {"block.up": 0, "block.down": 1, "haed": 0}, max_memory={0: "1KB", 1: "8KB"}
        )
    codes = {problem.code for problem in caught.value.problems}
    assert {"DM201", "DM202", "DM203"} <= codes
    assert len(caught.value.problems) >= 4


def test_classes_may_be_named_by_the_caller() -> None:
    check_device_map(INVENTORY, {"block.up": 0, "block.down": 1, "head": 0}, no_split_module_classes=[])


def test_a_budget_that_is_no_size_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="ambiguous"):
        check_device_map(INVENTORY, {"": 0}, max_memory={0: "8gb"})
