"""Models and budgets at the edge: each a plan or a clear error, in bounded time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from devmap.errors import ResolutionError
from devmap.inventory.model import Inventory, Tensor
from devmap.plan.fold import covers
from devmap.planning.resolve import resolve
from tests.effort import at_most
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from devmap.plan.model import Plan

MILLION_STEPS = 150
"""Far more than any of these needs, and far less than a quadratic loop would take."""


def planned(inventory: Inventory, **keys: Any) -> Plan:
    with at_most(MILLION_STEPS):
        return resolve(config(**keys), inventory)


@pytest.mark.parametrize("strategy", ["auto", "balanced", "balanced_low_0"])
def test_a_model_with_no_parameters_has_a_plan(strategy: str) -> None:
    plan = planned(Inventory({"": "Empty"}, {}), device_map=strategy, max_memory={0: 10, "cpu": 10})
    assert plan.placements == ()
    assert [use.weight_bytes for use in plan.devices] == [0, 0]


def test_one_giant_parameter_is_placed_whole_or_refused() -> None:
    giant = Inventory({"": "Root"}, {"weight": Tensor("weight", (10**14,), "float32")})
    assert planned(giant, max_memory={0: 10, 1: 4 * 10**14}).device_map == {"": 1}
    assert planned(giant, max_memory={0: 10, "cpu": 4 * 10**14}).device_map == {"": "cpu"}
    with pytest.raises(ResolutionError, match="no plan fits"):
        planned(giant, max_memory={0: 3 * 10**14, 1: 3 * 10**14})


def test_five_thousand_tie_groups_are_kept_together() -> None:
    names = [f"m{at}.weight" for at in range(10_000)]
    ties = tuple((names[at], names[at + 5_000]) for at in range(5_000))
    plan = planned(chain(*[8] * 10_000, ties=ties), device_map="balanced", max_memory={0: 20_000, 1: 30_000})
    assert all(covers(plan.device_map, one) == covers(plan.device_map, other) for one, other in ties)
    assert sorted(use.weight_bytes for use in plan.devices) == [20_000, 20_000]


def test_a_chain_four_hundred_modules_deep_is_planned() -> None:
    modules, tensors, path = {"": "Root"}, {}, ""
    for _ in range(400):
        path = f"{path}.inner".lstrip(".")
        modules[path] = "Deep"
        tensors[f"{path}.weight"] = Tensor(f"{path}.weight", (10,), "uint8")
    plan = planned(Inventory(modules, tensors), device_map="balanced", max_memory={0: 2000, 1: 2000})
    assert [use.weight_bytes for use in plan.devices] == [2000, 2000]
    assert planned(
        Inventory(modules, tensors, no_split_module_classes=("Deep",)), max_memory={0: 4000}
    ).device_map == {"": 0}


def test_names_that_begin_others_stay_apart() -> None:
    modules = {"": "M", "layer": "L", **{f"layer.{number}": "Leaf" for number in (1, 10, 11)}}
    tensors = {
        f"{path}.weight": Tensor(f"{path}.weight", (4,), "uint8")
        for path in modules
        if path.startswith("layer.")
    }
    plan = planned(Inventory(modules, tensors), device_map={"layer.1": 1, "": 0}, max_memory={0: 100, 1: 100})
    assert plan.device_map == {"layer.1": 1, "layer.10": 0, "layer.11": 0}


def test_no_split_classes_that_name_nothing_change_nothing() -> None:
    inventory = chain(5, 5, 5)
    keys: dict[str, Any] = {"max_memory": {0: 10, 1: 10}}
    assert (
        planned(inventory, no_split_module_classes=["Nothing"], **keys).device_map
        == planned(inventory, **keys).device_map
    )


@pytest.mark.parametrize("strategy", ["auto", "sequential", "balanced"])
def test_zero_budgets_and_gaps_in_ids_are_stepped_over(strategy: str) -> None:
    plan = planned(chain(5, 5), device_map=strategy, max_memory={0: 0, 3: 5, 5: 0, 7: 5})
    assert plan.device_map == {"m0": 3, "m1": 7}


def test_nothing_but_zero_budgets_says_what_is_missing() -> None:
    with pytest.raises(ResolutionError) as caught:
        planned(chain(5, 5), max_memory={0: 0, "cpu": 0})
    assert caught.value.shortfall_bytes == 10


@pytest.mark.parametrize("limits", [(15, 0), (10, 5), (5, 10)])
def test_a_budget_is_used_to_the_byte_and_one_byte_less_has_no_plan(limits: tuple[int, int]) -> None:
    plan = planned(chain(5, 5, 5), device_map="balanced", max_memory=dict(enumerate(limits)))
    assert [use.free_bytes for use in plan.devices] == [0, 0]
    less = {at: max(0, limit - (limit > 0 and at == 0)) for at, limit in enumerate(limits)}
    with pytest.raises(ResolutionError):
        planned(chain(5, 5, 5), device_map="balanced", max_memory=less)


@pytest.mark.parametrize(
    "memory",
    [{0: 100_000}, {0: 100_000, "cpu": 200_000}, {0: 30_000, 1: 30_000, "cpu": 100_000, "disk": 10**6}],
)
@pytest.mark.parametrize("strategy", ["auto", "balanced"])
def test_many_blocks_of_many_sizes_take_bounded_time_with_a_plan_and_without(
    memory: dict[Any, int], strategy: str
) -> None:
    inventory = chain(*[1 + at * 7919 % 101 for at in range(8_000)])
    if sum(memory.values()) < inventory.nbytes:
        with pytest.raises(ResolutionError, match="no plan fits"):
            planned(inventory, device_map=strategy, max_memory=memory)
    else:
        assert len(planned(inventory, device_map=strategy, max_memory=memory).placements) == 8_000


def test_time_does_not_grow_with_the_square_of_the_model() -> None:
    def seconds(count: int) -> float:
        inventory = chain(*[3 + at % 5 for at in range(count)])
        keys: dict[str, Any] = {
            "max_memory": {**dict.fromkeys(range(4), count), "cpu": 2 * count, "disk": 10 * count}
        }
        runs = []
        for _ in range(3):
            start = time.process_time()
            resolve(config(**keys), Inventory(inventory.modules, inventory.tensors))
            runs.append(time.process_time() - start)
        return min(runs)

    assert seconds(16_000) < 16 * seconds(2_000)
