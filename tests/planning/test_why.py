"""Why a module lives where it does; what is said of one more GB is what a plan with it does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.model.machines import preset
from devmap.config.values.device import CPU, Device, Tier
from devmap.errors import ResolutionError, UsageError
from devmap.inventory.model import Inventory, Tensor
from devmap.planning.resolve import resolve
from devmap.planning.why.explanation import Explanation, why
from tests.planning.planning_models import chain, config, decoder, inventories

GPU, GPU1 = Device(Tier.ACCELERATOR, 0), Device(Tier.ACCELERATOR, 1)
MODEL = chain(48, 7, 7, 7, 7, 7)
SPILLING = {"max_memory": {0: 60, 1: 25, "cpu": 15, "disk": 100}}


def explained(inventory: Inventory, path: str, **keys: Any) -> Explanation:
    return why(config(**keys), inventory, path, more_bytes=10)


def kinds(explanation: Explanation) -> list[str]:
    return [factor.kind for factor in explanation.parts[0].factors]


def test_what_was_left_is_what_stood_before_it_and_what_is_kept_left() -> None:
    explanation = explained(MODEL, "m2", max_memory={0: 60, 1: 60})
    part = explanation.parts[0]
    assert (part.home, part.executes_on, part.nbytes) == (GPU1, GPU1, 7)
    assert [(one.device, one.left_bytes, one.needed_bytes, one.fits) for one in part.left] == [
        (GPU, 5, 7, False),
        (GPU1, 60, 7, True),
    ]
    assert [(factor.kind, factor.device) for factor in part.factors] == [("budget", GPU)]


@settings(max_examples=8)
@given(inventories(), st.data())
def test_what_is_said_of_more_memory_is_what_a_plan_with_it_does(
    inventory: Inventory, data: st.DataObject
) -> None:
    sizes = st.integers(0, inventory.nbytes)
    keys = {0: data.draw(sizes), 1: data.draw(sizes), "cpu": data.draw(sizes), "disk": data.draw(sizes)}
    path = data.draw(st.sampled_from([*inventory.modules, *inventory.tensors]))
    explanation = why(config(max_memory=keys), inventory, path, more_bytes=7)
    for one in explanation.with_more:
        more = {**keys, one.device.plain: keys[one.device.plain] + 7}
        try:
            plan = resolve(config(max_memory=more), inventory)
        except ResolutionError:
            assert not one.fits
            continue
        assert one.fits
        homes = {placement.path: (placement.home, placement.executes_on) for placement in plan.placements}
        assert all(
            homes[part.first] == homes[part.last] == (part.home, part.executes_on) for part in one.parts
        )
        assert one.streamed_bytes == sum(placement.home_bytes for placement in plan.streamed)
    if explanation.fits:
        assert all(
            left.left_bytes is None or left.left_bytes >= 0
            for part in explanation.parts
            for left in part.left
        )
    else:
        assert explanation.problem


def test_a_whole_class_is_told_for_what_is_inside() -> None:
    explanation = explained(decoder(), "model.layers.1.mlp", max_memory={0: 10**6})
    assert (explanation.placed_with, explanation.placed_class) == ("model.layers.1", "Block")
    assert explanation.weight_bytes == 16 * 8 * 2
    assert "no-split" in kinds(explanation)


def test_a_pin_a_tie_and_the_groups_are_told() -> None:
    tied = chain(8, 6, 8, ties=(("m0.weight", "m2.weight"),))
    pinned = explained(tied, "m2", device_map={"m0": 1, "": "auto"}, max_memory={0: 50, 1: 50})
    assert kinds(pinned)[:2] == ["pin", "tie"]
    assert "device_map['m0'] pins 'm0'" in pinned.parts[0].factors[0].sentence
    joined = explained(chain(1, 1), "m1", same_device=[["m0", "m1"]], max_memory={0: 50})
    assert "same_device[0]" in joined.parts[0].factors[0].sentence


def test_an_excluded_device_is_named() -> None:
    explanation = explained(chain(1, 1), "m1", forbid={0: ["m1"]}, max_memory={0: 50, 1: 50})
    assert ("forbid", GPU) in [(factor.kind, factor.device) for factor in explanation.parts[0].factors]
    trained = explained(decoder(), "lm_head", workload="training", max_memory={0: 10**6, "disk": 10**6})
    assert "training" in kinds(trained)


def test_headroom_that_binds_is_told() -> None:
    explanation = explained(chain(8, 8), "m1", headroom="20%", max_memory={0: 18, 1: 20})
    assert "headroom" in kinds(explanation)


def test_balance_is_told_where_there_was_room() -> None:
    explanation = explained(chain(5, 5, 5, 5), "m2", device_map="balanced", max_memory={0: 100, 1: 100})
    assert kinds(explanation) == ["balance"]


def test_streaming_and_its_reserve_are_told() -> None:
    explanation = explained(MODEL, "m5", **SPILLING)
    part = explanation.parts[0]
    assert not part.home.is_accelerator
    assert part.executes_on.is_accelerator
    assert "stream" in kinds(explanation)


def test_a_module_that_the_cpu_computes_says_so() -> None:
    explanation = explained(chain(50, 5, 5), "m0", max_memory={0: 10, "cpu": 100})
    assert explanation.parts[0].executes_on == CPU
    assert kinds(explanation) == ["budget", "in-place"]


def test_a_container_is_told_in_runs() -> None:
    explanation = explained(decoder(8), "model.layers", max_memory={0: 2000, 1: 10**6})
    assert [part.home for part in explanation.parts] == [GPU, GPU1]
    assert explanation.parts[0].first == "model.layers.0"
    assert explanation.weight_bytes == 8 * (8 * 8 + 16 * 8) * 2


def test_workload_charges_and_buffers_are_told() -> None:
    explanation = explained(decoder(), "model.layers.0", workload="inference", max_memory={0: 10**6})
    assert [charge.what for charge in explanation.charges] == ["kv cache"]
    buffered = Inventory(
        MODEL.modules, {**MODEL.tensors, "m5.scale": Tensor("m5.scale", (3,), "uint8", "buffer")}
    )
    assert explained(buffered, "m5", max_memory={0: 1000}).buffer_bytes == 3


def test_without_a_plan_it_says_what_is_missing_and_what_would_fit() -> None:
    explanation = explained(chain(8, 8, 8), "m2", max_memory={0: 10, 1: 10})
    assert not explanation.fits
    assert explanation.homeless
    assert "6 bytes" in explanation.problem
    assert len(explanation.changes) == 3
    assert [(one.device, one.fits) for one in explanation.with_more] == [(GPU, True), (GPU1, True)]


def test_a_misspelt_path_is_answered_with_a_near_one() -> None:
    with pytest.raises(UsageError) as caught:
        explained(decoder(), "model.layer.0", max_memory={0: 10**6})
    assert caught.value.help == "did you mean 'model.layers.0'?"


def test_one_more_gb_on_a_device_of_a_machine_counts_against_its_share() -> None:
    machine = preset("2x4090")
    assert machine is not None
    for keys in ({}, {"max_memory": {0: "90%", 1: "90%"}}):
        explanation = why(config(**keys), chain(8, 8), "m1", machine)
        assert [one.fits for one in explanation.with_more] == [True] * len(explanation.with_more) != []


def test_fastest_is_explained_by_time() -> None:
    explanation = why(
        config(device_map="fastest", machine={"name": "2x4090"}, max_memory={0: 10, 1: 30}),
        chain(8, 8, 8),
        "m2",
        preset("2x4090"),
    )
    assert explanation.strategy == "fastest"
    assert {factor.kind for factor in explanation.parts[0].factors} <= {"time", "budget"}
    assert [one.fits for one in explanation.with_more] == [True, True]


def test_what_is_packed_out_of_order_is_not_said_to_be_filled_forward() -> None:
    explanation = explained(chain(7, 2, 11, 16), "m0", max_memory={0: 12, 1: 21, 4: 7})
    sentences = [factor.sentence for part in explanation.parts for factor in part.factors]
    assert (
        "device 0 had room for it, but nothing fits in the model's order: blocks are packed as they fit."
        in sentences
    )
