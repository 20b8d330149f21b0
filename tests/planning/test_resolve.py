"""What the resolver promises, on random models and budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from devmap.config.values.device import CPU, DISK, parse_device
from devmap.errors import DeviceMapError, ResolutionError
from devmap.inventory.model import Inventory, Tensor
from devmap.plan.fold import covers
from devmap.planning.resolve import resolve
from devmap.planning.result.verify import faults_of
from tests.planning.planning_models import chain, config, decoder, inventories, memories, rows, tight_memories

if TYPE_CHECKING:
    from devmap.plan.model import Plan

STRATEGIES = ["auto", "sequential", "balanced", "balanced_low_0"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Inventory, dict[str, Any]]:
    inventory = draw(st.one_of(rows(), inventories()))
    keys: dict[str, Any] = {
        "device_map": draw(st.sampled_from(STRATEGIES)),
        "max_memory": draw(st.one_of(tight_memories(inventory.nbytes), memories(inventory.nbytes))),
    }
    if draw(st.integers(0, 3)) == 0:
        keys["headroom"] = draw(st.sampled_from(["10%", 3]))
    keys["offload"] = {"buffers": draw(st.booleans())}
    return inventory, keys


def planned(inventory: Inventory, keys: dict[str, Any]) -> Plan | None:
    try:
        plan = resolve(config(**keys), inventory)
    except ResolutionError as error:
        _is_explained(error)
        event("no plan")
        return None
    used = {placement.home for placement in plan.placements if placement.home.is_accelerator}
    streams = any(placement.executes_on.is_accelerator for placement in plan.streamed)
    event(f"{min(len(used), 2)} accelerators in use, {'streams to one' if streams else 'nothing streams'}")
    return plan


def _is_explained(error: ResolutionError) -> None:
    assert error.shortfall_bytes > 0, error
    assert "failed verification" not in error.message, error


def homes(plan: Plan) -> list[int | str]:
    return [placement.home.plain for placement in plan.placements]


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_config_gives_a_plan_that_keeps_every_promise_or_says_what_is_missing(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    inventory, keys = case
    plan = planned(inventory, keys)
    if plan is None:
        return
    assert list(faults_of(plan, inventory, config(**keys))) == []
    offered = {parse_device(key) for key in keys["max_memory"]}
    assert {placement.home for placement in plan.placements} <= offered
    assert all(use.free_bytes is None or use.free_bytes >= 0 for use in plan.devices)


@settings(max_examples=100, deadline=None)
@given(inventories(), st.sampled_from(STRATEGIES))
def test_an_exact_fit_is_used_to_the_byte(inventory: Inventory, strategy: str) -> None:
    plan = resolve(
        config(device_map=strategy, max_memory={2: inventory.nbytes, "cpu": 10**6, "disk": 10**6}), inventory
    )
    if inventory.nbytes:
        assert plan.device_map == {"": 2}


@settings(max_examples=100, deadline=None)
@given(cases())
def test_room_to_stream_is_reserved_only_when_something_streams(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    plan = planned(*case)
    if plan is None:
        return
    for use in plan.devices:
        slots = [charge for charge in use.charges if charge.what == "slots"]
        runs_here = [one for one in plan.streamed if one.executes_on == use.device]
        # What the CPU executes from disk runs from the mapped pages of its file.
        assert bool(slots) == bool(runs_here and use.device.is_accelerator)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_streamed_block_executes_on_its_nearest_resident_predecessor(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    inventory, keys = case
    plan = planned(inventory, keys)
    if plan is None:
        return
    nearest = None
    for placement in plan.placements:
        if placement.home.is_accelerator:
            nearest = placement.home
        elif placement.executes_on.is_accelerator and nearest is not None:
            assert placement.executes_on == nearest


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_same_input_gives_the_same_plan(case: tuple[Inventory, dict[str, Any]]) -> None:
    assert planned(*case) == planned(*case)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_changes_of_an_error_make_it_fit(case: tuple[Inventory, dict[str, Any]]) -> None:
    inventory, keys = case
    keys = {**keys, "headroom": None}
    try:
        resolve(config(**keys), inventory)
    except ResolutionError as error:
        for change in error.changes:
            if change.startswith("raise"):
                device, nbytes = (
                    change.partition(" by ")[0].split()[-1],
                    int(change.split("(")[1].split()[0].replace(",", "")),
                )
                memory = {str(key): amount for key, amount in keys["max_memory"].items()}
                memory[device] += nbytes
                resolve(config(**{**keys, "max_memory": memory}), inventory)


def test_sequential_fills_in_order_and_never_goes_back() -> None:
    plan = resolve(
        config(device_map="sequential", max_memory={0: 20, 1: 30, "cpu": 100}), chain(6, 6, 9, 6, 6, 6, 6)
    )
    assert homes(plan) == [0, 0, 1, 1, "cpu", "cpu", "cpu"]


def test_a_unit_too_large_for_every_accelerator_is_stepped_round() -> None:
    plan = resolve(config(max_memory={0: 10, "cpu": 100}), chain(50, 5, 5))
    assert homes(plan) == ["cpu", 0, 0]
    assert plan.placements[0].executes_on == CPU


def test_gaps_are_filled_only_where_there_would_be_no_plan() -> None:
    plan = resolve(config(max_memory={0: 10, 1: 6}), chain(6, 6, 3))
    assert homes(plan) == [0, 1, 0]
    assert any("went back" in reason for reason in plan.reasons)


def test_one_slot_is_taken_where_two_would_drive_out_a_larger_block() -> None:
    plan = resolve(config(max_memory={0: 60, "cpu": 100}), chain(48, 7, 7, 7))
    assert homes(plan) == [0, "cpu", "cpu", "cpu"]
    assert any("1 slot" in reason for reason in plan.reasons)


def test_everything_is_computed_by_the_cpu_where_no_accelerator_is_offered() -> None:
    plan = resolve(config(max_memory={"cpu": 20, "disk": 100}), chain(5, 5, 5, 5, 5))
    assert {placement.executes_on for placement in plan.placements} == {CPU}
    cpu = plan.use_of(CPU)
    assert cpu is not None
    assert cpu.charges == ()
    assert cpu.weight_bytes == 20
    assert "disk" in homes(plan)


def test_the_disk_is_offered_by_an_offload_folder() -> None:
    plan = resolve(config(max_memory={0: 12}, offload={"folder": "x"}), chain(4, 4, 4, 4))
    assert homes(plan)[-1] == "disk"
    use = plan.use_of(DISK)
    assert use is not None
    assert use.capacity_bytes is None


def test_balanced_counts_pins_and_solves_the_rest() -> None:
    plan = resolve(
        config(device_map={"m0": 1, "": "balanced"}, max_memory={0: 100, 1: 100}), chain(10, 5, 5, 5, 5)
    )
    assert sorted(use.weight_bytes for use in plan.devices) == [15, 15]


def test_strategies_of_subtrees() -> None:
    plan = resolve(
        config(device_map={"model.layers": "balanced", "": 1}, max_memory={0: 10**4, 1: 10**4}), decoder()
    )
    assert covers(plan.device_map, "lm_head") == 1
    assert {covers(plan.device_map, f"model.layers.{layer}") for layer in range(4)} == {0, 1}


def test_ranges_and_globs_pin() -> None:
    plan = resolve(
        config(
            device_map={"model.layers[0-1]": 1, "model.layers.*": 0, "": "auto"},
            max_memory={0: 10**5, 1: 10**5},
        ),
        decoder(),
    )
    assert [covers(plan.device_map, f"model.layers.{layer}") for layer in range(4)] == [1, 1, 0, 0]


def test_tied_tensors_share_a_device_and_their_bytes_count_once() -> None:
    inventory = chain(8, 6, 8, ties=(("m0.weight", "m2.weight"),))
    plan = resolve(config(device_map="balanced", max_memory={0: 9, 1: 9}), inventory)
    assert homes(plan) == [0, 1, 0]


def test_pins_that_part_a_tie_say_what_the_copy_costs() -> None:
    inventory = chain(8, 6, 8, ties=(("m0.weight", "m2.weight"),))
    plan = resolve(config(device_map={"m0": 0, "m2": 1, "": "auto"}, max_memory={0: 20, 1: 20}), inventory)
    assert [use.weight_bytes for use in plan.devices] == [14, 8]
    assert any("a copy on device 1 costs 8 B" in reason for reason in plan.reasons)


def test_constraints_in_conflict_are_named() -> None:
    with pytest.raises(ResolutionError, match=r"same_device \[m0, m1\] contradicts device_map"):
        resolve(
            config(
                device_map={"m0": 0, "m1": 1, "": "auto"},
                same_device=[["m0", "m1"]],
                max_memory={0: 20, 1: 20},
            ),
            chain(1, 1, 1),
        )
    with pytest.raises(ResolutionError, match="'forbid' keeps it off device 0"):
        resolve(
            config(device_map={"m0": 0, "": "auto"}, forbid={0: ["m0"]}, max_memory={0: 20, 1: 20}),
            chain(1, 1, 1),
        )


def test_same_device_and_forbid_hold() -> None:
    plan = resolve(
        config(same_device=[["m0", "m3"]], forbid={0: ["m1"]}, max_memory={0: 20, 1: 20}), chain(1, 1, 1, 1)
    )
    assert homes(plan)[0] == homes(plan)[3]
    assert homes(plan)[1] == 1


def test_every_problem_of_a_map_is_listed() -> None:
    wrong = {"model.layers.0.mlp": 0, "model.layers": 1, "model.nothing": 1}
    with pytest.raises(DeviceMapError) as caught:
        resolve(config(device_map=wrong, max_memory={0: 10**5, 1: 10**5}), decoder())
    assert {problem.code for problem in caught.value.problems} == {"DM201", "DM202", "DM203"}


def test_a_device_that_nobody_offers_is_refused() -> None:
    with pytest.raises(ResolutionError, match="which is not offered"):
        resolve(config(device_map={"m0": "cpu", "": 0}, max_memory={0: 100}), chain(1, 1))


def test_no_plan_says_the_shortfall() -> None:
    with pytest.raises(ResolutionError) as caught:
        resolve(config(max_memory={0: 10, 1: 10}), chain(8, 8, 8))
    assert caught.value.shortfall_bytes == 6  # one device of 16 and one of 10 hold two modules and one
    assert any(change.startswith("offer cpu") for change in caught.value.changes)


def test_fastest_without_rates_says_which_are_missing() -> None:
    with pytest.raises(ResolutionError, match="rates"):
        resolve(config(device_map="fastest", max_memory={0: 100}), chain(1))


def test_buffers_stay_where_a_streamed_module_is_executed() -> None:
    inventory = chain(10, 10, 10)
    buffer = Tensor("m2.scale", (3,), "uint8", "buffer")
    inventory = Inventory(inventory.modules, {**inventory.tensors, buffer.name: buffer})
    plan = resolve(config(max_memory={0: 23, "cpu": 20}), inventory)
    assert plan.placements[2].resident_buffer_bytes == 3
    use = plan.use_of(CPU)
    assert use is not None
    assert use.weight_bytes == 20
