from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap import get_balanced_memory, infer_auto_device_map
from devmap.errors import ResolutionError, UsageError
from devmap.planning.resolve import resolve
from tests.planning.planning_models import chain, config, inventories


@settings(max_examples=100, deadline=None)
@given(inventories(), st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True), st.booleans())
def test_get_balanced_memory_returns_budgets_that_reproduce_the_optimum(
    model: Any, ids: list[int], low_zero: bool
) -> None:
    memory: dict[int | str, int | str] = dict.fromkeys(ids, model.nbytes)
    strategy = "balanced_low_0" if low_zero else "balanced"
    expected = resolve(config(device_map=strategy, max_memory=memory), model).device_map
    assert infer_auto_device_map(model, get_balanced_memory(model, memory, low_zero=low_zero)) == expected


def test_the_caller_s_dict_is_never_changed() -> None:
    memory: dict[int | str, int | str] = {0: "10KB", 3: "1KiB", "disk": 10}
    get_balanced_memory(chain(5, 5), memory)
    infer_auto_device_map(chain(5, 5), memory)
    assert memory == {0: "10KB", 3: "1KiB", "disk": 10}


def test_disk_is_used_only_when_offered() -> None:
    assert infer_auto_device_map(chain(5, 5, 5), {0: 15, "disk": 100}) == {"": 0}
    assert "disk" in infer_auto_device_map(chain(5, 5, 5, 5), {0: 15, "disk": 100}).values()
    with pytest.raises(ResolutionError):
        infer_auto_device_map(chain(5, 5, 5, 5), {0: 15})


def test_a_budget_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(UsageError, match="max_memory of 0"):
        infer_auto_device_map(chain(5), {0: "8gb"})


def test_maps_can_be_had_unfolded() -> None:
    assert infer_auto_device_map(chain(5, 5), {0: 10}, clean_result=False) == {"m0": 0, "m1": 0}
