"""The proof sees what is wrong with a plan, and the validator accepts what the planner returns."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from devmap.config.values.device import CPU, parse_device
from devmap.errors import DevmapError, ResolutionError
from devmap.plan.model import Charge, TiedCopy
from devmap.planning.resolve import resolve
from devmap.planning.result.verify import faults_of, prove
from devmap_validators.checks.device_map import device_map_findings
from tests.planning.planning_models import chain, config, decoder, inventories, memories, rows, tight_memories

if TYPE_CHECKING:
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

ZERO, ONE = parse_device(0), parse_device(1)


def faults(plan: Plan, inventory: Inventory, asked: PlacementConfig) -> str:
    return "; ".join(faults_of(plan, inventory, asked))


def moved(plan: Plan, at: int, **changes: Any) -> Plan:
    placements = list(plan.placements)
    placements[at] = placements[at]._replace(**changes)
    return dataclasses.replace(plan, placements=tuple(placements))


def solved(inventory: Inventory, **keys: Any) -> tuple[Plan, PlacementConfig]:
    asked = config(**keys)
    return resolve(asked, inventory), asked


def test_a_tensor_that_nothing_places_is_found() -> None:
    inventory = chain(5, 5, 5)
    plan, asked = solved(inventory, max_memory={0: 10, 1: 10})
    assert "nothing places 'm2.weight'" in faults(
        dataclasses.replace(plan, device_map={"m0": 0, "m1": 0}), inventory, asked
    )
    assert "nothing places 'm2.weight'" in faults(
        dataclasses.replace(plan, placements=plan.placements[:2]), inventory, asked
    )


def test_a_map_and_placements_that_differ_are_found() -> None:
    inventory = chain(5, 5, 5)
    plan, asked = solved(inventory, max_memory={0: 10, 1: 10})
    assert "the map sends 'm0.weight' to 1 and its placement to 0" in faults(
        dataclasses.replace(plan, device_map={"m0": 1, "m1": 0, "m2": 1}), inventory, asked
    )


def test_bytes_that_are_not_there_are_found_by_placement_and_by_device() -> None:
    inventory = chain(5, 5, 5)
    plan, asked = solved(inventory, max_memory={0: 10, 1: 10})
    assert "'m0' is said to own 4 bytes and owns 5" in faults(moved(plan, 0, nbytes=4), inventory, asked)
    light = (dataclasses.replace(plan.devices[0], weight_bytes=9), plan.devices[1])
    assert "0 is said to hold 9 bytes of weights and holds 10" in faults(
        dataclasses.replace(plan, devices=light), inventory, asked
    )
    full = (dataclasses.replace(plan.devices[0], charges=(Charge("kv cache", 1),)), plan.devices[1])
    assert "0 is over its budget by 1 bytes" in faults(
        dataclasses.replace(plan, devices=full), inventory, asked
    )
    grown = (dataclasses.replace(plan.devices[0], capacity_bytes=11), plan.devices[1])
    assert "0 is said to have 11 bytes, and max_memory gives 10" in faults(
        dataclasses.replace(plan, devices=grown), inventory, asked
    )


def test_a_parted_tie_needs_a_copy_in_the_plan_whatever_is_pinned() -> None:
    inventory = chain(8, 6, 8, ties=(("m0.weight", "m2.weight"),))
    plan, asked = solved(inventory, device_map={"m0": 0, "m2": 1, "": "auto"}, max_memory={0: 20, 1: 20})
    assert faults(plan, inventory, asked) == ""
    (copy,) = plan.tied_copies
    assert copy == TiedCopy("m2.weight", "m0.weight", ONE, 8)
    for copies in (
        (),
        (dataclasses.replace(copy, device=ZERO),),
        (dataclasses.replace(copy, tensor="m1.weight"),),
    ):
        assert "lists no copy of 'm2.weight' on 1" in faults(
            dataclasses.replace(plan, tied_copies=copies), inventory, asked
        )
    assert faults(dataclasses.replace(plan, reasons=()), inventory, asked) == ""
    assert "'m2' is said to own 0 bytes and owns 8" in faults(moved(plan, 2, nbytes=0), inventory, asked)


def test_pins_forbid_and_same_device_are_read_again() -> None:
    inventory = chain(1, 1, 1)
    plan, _ = solved(inventory, max_memory={0: 1, 1: 2})
    memory = {0: 1, 1: 2}
    assert "'m0.weight' is pinned to 1 and lies on 0" in faults(
        plan, inventory, config(device_map={"m[0-1]": 0, "m*": 1, "m0": 1}, max_memory=memory)
    )
    assert "'m2.weight' lies on 1, which 'forbid' keeps it off" in faults(
        plan, inventory, config(forbid={1: ["m2"]}, max_memory=memory)
    )
    assert "'m1.weight' lies on 1, apart from the rest of same_device[0]" in faults(
        plan, inventory, config(same_device=[["m0", "m1"]], max_memory=memory)
    )


def test_a_straddling_class_and_a_tier_that_nobody_offers_are_found() -> None:
    inventory = decoder(2)
    plan, asked = solved(inventory, max_memory={0: 10**5, "cpu": 10**5})
    parted: dict[str, int | str] = {**dict.fromkeys(inventory.tensors, 0), "model.layers.1.mlp.weight": "cpu"}
    assert "'model.layers.1' (Block) straddles 0, cpu" in faults(
        dataclasses.replace(plan, device_map=parted), inventory, asked
    )
    assert "0 holds weights and is not offered" in faults(plan, inventory, config(max_memory={1: 10**5}))


def test_an_executor_that_is_not_the_nearest_and_slots_that_are_too_small_are_found() -> None:
    inventory = chain(10, 10, 4, 4, 4, 4, 4)
    plan, asked = solved(inventory, max_memory={0: 10, 1: 22, "cpu": 100})
    spilled = len(inventory.tensors) - 1
    assert plan.placements[spilled].is_streamed
    assert "is streamed to 0; the nearest resident module before it is on 1" in faults(
        moved(plan, spilled, executes_on=ZERO), inventory, asked
    )
    assert "lives on 0 and is executed on 1" in faults(moved(plan, 0, executes_on=ONE), inventory, asked)
    bare = tuple(dataclasses.replace(use, charges=()) for use in plan.devices)
    assert "keeps 0 bytes of slots for a module of 4" in faults(
        dataclasses.replace(plan, devices=bare), inventory, asked
    )


def test_what_the_workload_keeps_is_attributed_again() -> None:
    inventory = decoder(4)
    keys: dict[str, Any] = {
        "device_map": "balanced",
        "max_memory": {0: 6000, 1: 6000},
        "workload": {"kind": "inference", "sequence_length": 10},
    }
    plan, asked = solved(inventory, **keys)
    assert faults(plan, inventory, asked) == ""
    bare = tuple(dataclasses.replace(use, charges=()) for use in plan.devices)
    found = faults(dataclasses.replace(plan, devices=bare), inventory, asked)
    assert "0 is charged 0 bytes for kv cache" in found
    assert "1 is charged 0 bytes for activations" in found


def test_trained_weights_that_are_streamed_are_found() -> None:
    inventory = decoder(4)
    plan, asked = solved(
        inventory, max_memory={0: 8000, "cpu": 10**6}, workload={"kind": "training", "sequence_length": 4}
    )
    at = next(at for at, placement in enumerate(plan.placements) if placement.home == CPU)
    assert "is trained and streamed from cpu" in faults(moved(plan, at, executes_on=ZERO), inventory, asked)


def test_a_broken_plan_is_not_returned() -> None:
    inventory = chain(5, 5)
    plan, asked = solved(inventory, max_memory={0: 10})
    with pytest.raises(ResolutionError, match=r"failed verification \(1 check\)"):
        prove(dataclasses.replace(plan, device_map={"m0": 0}), inventory, asked)


@st.composite
def constraints(draw: st.DrawFn) -> tuple[Inventory, dict[str, Any]]:
    inventory = draw(st.one_of(rows(), inventories()))
    memory = draw(st.one_of(tight_memories(inventory.nbytes), memories(inventory.nbytes)))
    paths = st.sampled_from([path for path in [*inventory.modules, *inventory.tensors] if path] or ["t0"])
    device_map: Any = draw(st.sampled_from(["auto", "sequential", "balanced", "balanced_low_0"]))
    if draw(st.booleans()):
        device_map = {
            path: draw(st.sampled_from(sorted(memory, key=str)))
            for path in draw(st.lists(paths, max_size=2, unique=True))
        }
        device_map[""] = draw(st.sampled_from(["auto", "balanced"]))
    keys: dict[str, Any] = {
        "device_map": device_map,
        "max_memory": memory,
        "offload": {"buffers": draw(st.booleans())},
    }
    if draw(st.booleans()):
        keys["same_device"] = (
            [draw(st.lists(paths, min_size=2, max_size=2, unique=True))] if len(inventory.modules) > 2 else []
        )
    if draw(st.booleans()):
        keys["forbid"] = {draw(st.sampled_from(sorted(memory, key=str))): [draw(paths)]}
    return inventory, keys


@settings(max_examples=150, deadline=None)
@given(constraints())
def test_the_validator_accepts_every_map_that_the_planner_returns_for_any_pins_and_constraints(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    inventory, keys = case
    try:
        plan = resolve(config(**keys), inventory)
    except DevmapError as error:
        if "failed verification" in error.message:
            raise
        event(f"no plan: {type(error).__name__}")
        return
    event("a plan")
    pinned = isinstance(keys["device_map"], dict) and len(keys["device_map"]) > 1
    memory = {parse_device(key): amount for key, amount in keys["max_memory"].items()}
    counts_alike = (
        keys["offload"]["buffers"] and not pinned
    )  # a map alone does not tell which buffers stay elsewhere, nor which copies there are
    found = device_map_findings(inventory, plan.device_map, max_memory=memory if counts_alike else None)
    allowed = {"DM204"} if pinned else set()  # a tie that pins part is what the plan itself reports
    assert [finding for finding in found if finding.severity == "error" and finding.code not in allowed] == []
