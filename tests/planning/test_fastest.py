"""`device_map: fastest`: never slower than what else there is, within every budget, true to every wish."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.values.device import CPU
from devmap.config.values.strategy import Objective
from devmap.errors import ResolutionError
from devmap.planning.fastest.search import Fastest, solve_fastest
from devmap.planning.problem.model import Overflow
from devmap.planning.resolve import resolve
from devmap.planning.result.verify import faults_of
from tests.effort import at_most
from tests.planning.fastest_models import RATES, costs, every_placement, machine, posed, runs, tiny
from tests.planning.planning_models import chain, config, decoder, inventories, memories

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

Case = tuple["Inventory", "MachineProfile", dict[str, Any]]
FAST = {"memory_bandwidth": 100.0, "flops": 1e9, "host_to_device": 10.0}
SLOW = {"memory_bandwidth": 10.0, "flops": 1e9, "host_to_device": 10.0}


def homes(plan: Plan) -> list[int | str]:
    return [placement.home.plain for placement in plan.placements]


def executors(plan: Plan) -> list[int | str]:
    return [placement.executes_on.plain for placement in plan.placements]


def planned(asked: PlacementConfig, inventory: Inventory, profile: MachineProfile) -> Plan | None:
    """The plan, or None where nothing fits; a plan that breaks a promise of its own is no such answer."""
    try:
        return resolve(asked, inventory, machine=profile)
    except ResolutionError as error:
        if "failed verification" in error.message:
            raise
        return None


@settings(max_examples=100, deadline=None)
@given(tiny(most=5, accelerators=3, lower=False), st.sampled_from(Objective))
def test_where_everything_fits_no_runs_in_any_order_of_devices_are_faster(
    case: Case, objective: Objective
) -> None:
    inventory, profile, keys = case
    problem = posed(inventory, profile, **keys)
    of = costs(problem, inventory, profile)
    times = [one.latency if objective is Objective.LATENCY else one.stage for one in runs(problem, of)]
    found = solve_fastest(problem, of, objective)
    if isinstance(found, Overflow):
        assert not times
    elif times:
        assert found.is_exact
        assert found.value <= min(times)


@settings(max_examples=60, deadline=None)
@given(tiny(most=4), st.sampled_from(Objective))
def test_the_bound_is_never_above_the_best_placement_and_fastest_never_below_it(
    case: Case, objective: Objective
) -> None:
    inventory, profile, keys = case
    problem = posed(inventory, profile, **keys)
    of = costs(problem, inventory, profile)
    found = solve_fastest(problem, of, objective)
    times = [
        one.latency if objective is Objective.LATENCY else one.stage
        for _, _, one in every_placement(problem, of)
    ]
    if isinstance(found, Fastest) and times:
        assert found.bound <= min(times)
        assert found.value >= found.bound


@settings(max_examples=40, deadline=None)
@given(tiny(most=4), st.sampled_from(Objective))
def test_no_placement_at_all_is_faster_where_there_are_few(case: Case, objective: Objective) -> None:
    """Four blocks have at most 2,500 placements, and all of them are tried."""
    inventory, profile, keys = case
    problem = posed(inventory, profile, **keys)
    of = costs(problem, inventory, profile)
    found = solve_fastest(problem, of, objective)
    times = [
        one.latency if objective is Objective.LATENCY else one.stage
        for _, _, one in every_placement(problem, of)
    ]
    assert isinstance(found, Overflow) is not bool(times)
    if isinstance(found, Fastest):
        assert found.value == min(times)


@pytest.mark.parametrize("objective", Objective)
def test_where_placements_are_many_it_is_within_a_twentieth_of_the_best_of_them(objective: Objective) -> None:
    """Of six blocks on two accelerators and the CPU not all placements are tried.

    Nothing is promised, and this holds what was measured.
    """
    draw = random.Random(7)
    ratios = []
    for _ in range(2):
        sizes = [draw.randint(3, 9) for _ in range(6)]
        keys: list[Any] = [0, 1, "cpu"]
        speeds = {
            key: {**RATES, "memory_bandwidth": draw.choice([1.0, 3.0, 10.0, 40.0, 400.0])} for key in keys
        }
        memory = {key: sum(sizes) if key == "cpu" else draw.randint(3, sum(sizes)) for key in keys}
        inventory, profile = chain(*sizes), machine(speeds)
        problem = posed(inventory, profile, max_memory=memory)
        of = costs(problem, inventory, profile)
        found = solve_fastest(problem, of, objective)
        assert isinstance(found, Fastest)
        best = min(
            one.latency if objective is Objective.LATENCY else one.stage
            for _, _, one in every_placement(problem, of)
        )
        ratios.append(found.value / best)
    assert max(ratios) < 1.05


def test_a_plan_of_which_all_others_were_tried_says_so() -> None:
    profile = machine(
        {
            0: {**SLOW, "memory_bandwidth": 400.0},
            1: {**SLOW, "memory_bandwidth": 1.0},
            "cpu": {**SLOW, "memory_bandwidth": 3.0},
        }
    )
    plan = resolve(
        config(device_map="fastest", max_memory={0: 9, 1: 12, "cpu": 40}), chain(8, 4, 3, 6), machine=profile
    )
    assert plan.predicted_seconds is not None
    assert any(reason.startswith("fastest: ") for reason in plan.reasons)


@pytest.mark.parametrize("shape", [(12, 12), (100, 100)])
def test_a_large_model_is_planned_by_time_in_bounded_time(shape: tuple[int, int]) -> None:
    """Blocks of which most are streamed, on devices that are not alike."""
    layers, each = shape
    profile = machine({0: FAST, 1: SLOW, "cpu": SLOW}, memory=10**7)
    sizes = [size for _ in range(layers) for size in (30, *[10] * each)]
    with at_most(million_steps=90):
        plan = resolve(
            config(
                device_map="fastest", max_memory={0: sum(sizes) // 5, 1: sum(sizes) // 8, "cpu": sum(sizes)}
            ),
            chain(*sizes),
            machine=profile,
        )
    assert plan.predicted_seconds is not None
    assert plan.bound_seconds is not None
    assert plan.predicted_seconds < 1.25 * plan.bound_seconds


@settings(max_examples=80, deadline=None)
@given(inventories(), st.data())
def test_every_plan_keeps_every_promise_and_is_no_slower_than_auto_and_balanced(
    inventory: Inventory, data: st.DataObject
) -> None:
    memory = data.draw(memories(inventory.nbytes))
    profile = machine({**dict.fromkeys(range(8), RATES), "cpu": SLOW, "disk": {"disk": 2.0}})
    keys = {"max_memory": memory, "offload": {"buffers": data.draw(st.booleans())}}
    found: dict[str, Plan | None] = {}
    for strategy in ("auto", "balanced", "fastest"):
        asked = config(device_map=strategy, **keys)
        found[strategy] = planned(asked, inventory, profile)
        plan = found[strategy]
        assert plan is None or list(faults_of(plan, inventory, asked)) == []
    assert (found["fastest"] is None) == (found["auto"] is None)
    for plan in found.values():
        if plan is not None:
            assert plan.bound_seconds is not None
            assert plan.predicted_seconds is not None
            assert plan.bound_seconds <= plan.predicted_seconds
    for other in (found["auto"], found["balanced"]):
        if other is not None and found["fastest"] is not None:
            assert found["fastest"].predicted_seconds is not None
            assert other.predicted_seconds is not None
            assert found["fastest"].predicted_seconds <= other.predicted_seconds


@settings(max_examples=30, deadline=None)
@given(tiny())
def test_the_same_input_gives_the_same_plan(case: Case) -> None:
    inventory, profile, keys = case

    asked = config(device_map="fastest", **keys)
    assert planned(asked, inventory, profile) == planned(asked, inventory, profile)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["auto", "balanced", "fastest"]),
    st.sampled_from([None, "inference", "training", "server"]),
    st.sampled_from(["latency", "throughput"]),
    st.tuples(st.integers(0, 6000), st.integers(0, 6000), st.integers(0, 60_000)),
)
def test_the_bound_holds_with_a_workload_too(
    strategy: str, kind: str | None, objective: str, memory: tuple[int, int, int]
) -> None:
    """KV cache, gradients and activations take room on the devices.

    The bound counts what it must and no more.
    """
    workload = None if kind is None else {"kind": kind, "batch_size": 2, "sequence_length": 4}
    asked = config(
        device_map=strategy,
        workload=workload,
        objective=objective,
        max_memory=dict(zip((0, 1, "cpu"), memory, strict=True)),
    )
    plan = planned(asked, decoder(5), machine({0: FAST, 1: SLOW, "cpu": SLOW}))
    if plan is not None:
        assert list(faults_of(plan, decoder(5), asked)) == []
        assert plan.bound_seconds is not None
        assert plan.predicted_seconds is not None
        assert plan.bound_seconds <= plan.predicted_seconds


def test_latency_fills_the_fastest_device_first_whatever_its_index() -> None:
    profile = machine({0: SLOW, 1: SLOW, 2: FAST})
    plan = resolve(
        config(device_map="fastest", max_memory={0: 30, 1: 30, 2: 30}), chain(*[10] * 5), machine=profile
    )
    assert homes(plan).count(2) == 3
    assert len(set(homes(plan))) == 2
    assert any("in any order of them" in reason for reason in plan.reasons)


def test_throughput_gives_each_device_work_by_its_speed() -> None:
    profile = machine({0: {**SLOW, "memory_bandwidth": 50.0}, 1: FAST})
    plan = resolve(
        config(device_map="fastest", objective="throughput", max_memory={0: 100, 1: 100}),
        chain(*[10] * 6),
        machine=profile,
    )
    assert homes(plan).count(1) == 4
    assert any("for throughput" in reason for reason in plan.reasons)


def test_residents_are_spread_evenly_where_blocks_are_streamed() -> None:
    """The CPU is slow, so 6 of 12 blocks stream; no two of them stand together more often than they must."""
    profile = machine({0: {**SLOW, "host_to_device": 5.0}, "cpu": {"memory_bandwidth": 100.0, "flops": 1.0}})
    plan = resolve(
        config(device_map="fastest", max_memory={0: 80, "cpu": 100}), chain(*[10] * 12), machine=profile
    )
    kinds = ["r" if home == 0 else "s" for home in homes(plan)]
    assert executors(plan) == [0] * 12
    assert kinds.count("r") == 6
    assert "sss" not in "".join(kinds)
    assert plan.bound_seconds is not None
    assert plan.predicted_seconds == pytest.approx(
        plan.bound_seconds, rel=0.35
    )  # the bound knows nothing of the room for slots


def test_equal_devices_take_turns_where_that_lets_both_links_copy() -> None:
    link = {"memory_bandwidth": 1000.0, "flops": 1e12, "host_to_device": 1.0}
    profile = machine({0: link, 1: link, "cpu": {"memory_bandwidth": 1e6, "flops": 1e-3}})
    keys = {"device_map": "fastest", "max_memory": {0: 50, 1: 50, "cpu": 1000}}
    plan = resolve(config(**keys), decoder_without_figures(24), machine=profile)
    assert any("take turns" in reason for reason in plan.reasons)
    auto = resolve(config(**{**keys, "device_map": "auto"}), decoder_without_figures(24), machine=profile)
    assert plan.predicted_seconds is not None
    assert auto.predicted_seconds is not None
    assert plan.predicted_seconds < 0.7 * auto.predicted_seconds


def decoder_without_figures(blocks: int) -> Inventory:
    return chain(*[10] * blocks)


def test_the_cpu_computes_in_place_what_its_memory_reads_faster_than_a_link_copies_it() -> None:
    profile = machine({0: FAST, "cpu": {"memory_bandwidth": 90.0, "flops": 1e9}})
    plan = resolve(
        config(device_map="fastest", max_memory={0: 35, "cpu": 100}), chain(*[10] * 6), machine=profile
    )
    assert not plan.streamed
    assert executors(plan) == homes(plan)
    assert homes(plan).count("cpu") == 3
    assert any(
        "The CPU computes 3 modules" in reason and "less time than copying" in reason
        for reason in plan.reasons
    )


def test_a_large_batch_is_streamed_instead() -> None:
    """The same machine: products on the CPU are slow, and a pass with 1,000 sequences has many."""
    profile = machine({0: FAST, "cpu": {"memory_bandwidth": 90.0, "flops": 1e4}}, memory=10**9)
    keys = {"device_map": "fastest", "max_memory": {0: 2500, "cpu": 10**6}}
    small = resolve(config(**keys), decoder(8), machine=profile)
    large = resolve(config(**keys), decoder(8, hidden_size=0), machine=profile)
    assert not small.streamed
    assert not large.streamed
    batch = {"kind": "inference", "batch_size": 1000, "sequence_length": 1}
    streams = resolve(
        config(**{**keys, "max_memory": {0: 2500 + 10**6, "cpu": 10**7}}, workload=batch),
        decoder(8),
        machine=profile,
    )
    assert (
        sum(placement.nbytes for placement in streams.placements if placement.executes_on == CPU) <= 512
    )  # at most the embedding


def test_pins_forbid_and_same_device_are_respected() -> None:
    profile = machine({0: SLOW, 1: FAST, "cpu": SLOW})
    constraints = {
        "device_map": {"m1": 0, "m4": "cpu", "": "fastest"},
        "same_device": [["m0", "m5"]],
        "forbid": {1: ["m2"]},
        "max_memory": {0: 60, 1: 60, "cpu": 60},
    }
    plan = resolve(config(**constraints), chain(*[10] * 6), machine=profile)
    placed = homes(plan)
    assert placed[1] == 0
    assert placed[4] == "cpu"
    assert placed[0] == placed[5] == 1
    assert placed[2] != 1


def test_tied_weights_share_a_device() -> None:
    inventory = chain(10, 10, 10, 10, ties=(("m0.weight", "m3.weight"),))
    plan = resolve(
        config(device_map="fastest", max_memory={0: 15, 1: 20}),
        inventory,
        machine=machine({0: FAST, 1: SLOW}),
    )
    assert homes(plan)[0] == homes(plan)[3]


def test_a_subtree_by_another_strategy_is_refused_by_name() -> None:
    asked = config(device_map={"m0": "balanced", "": "fastest"}, max_memory={0: 100})
    with pytest.raises(ResolutionError, match="fastest in one subtree and balanced in another"):
        resolve(asked, chain(1, 1), machine=machine({0: FAST}))


def test_missing_rates_are_named_with_what_gives_them() -> None:
    profile = machine(
        {0: {"flops": 1.0, "host_to_device": 1.0}, "cpu": {"memory_bandwidth": 1.0, "flops": 1.0}}
    )
    with pytest.raises(ResolutionError, match="memory_bandwidth of device 0, disk of disk") as caught:
        resolve(
            config(device_map="fastest", max_memory={0: 9, "cpu": 9, "disk": 9}), chain(1), machine=profile
        )
    assert "devmap doctor -o machine.yaml" in caught.value.help
    with pytest.raises(ResolutionError, match="no machine with rates is known"):
        resolve(config(device_map="fastest", max_memory={0: 9}), chain(1))


def test_what_does_not_fit_says_what_is_missing() -> None:
    with pytest.raises(ResolutionError) as caught:
        resolve(config(device_map="fastest", max_memory={0: 10}), chain(8, 8), machine=machine({0: FAST}))
    assert caught.value.shortfall_bytes > 0


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_machine_without_accelerators_computes_on_the_cpu(objective: str) -> None:
    asked = config(device_map="fastest", objective=objective, max_memory={"cpu": 100})
    plan = resolve(asked, chain(8, 8), machine=machine({"cpu": SLOW}))
    assert executors(plan) == ["cpu", "cpu"]
    assert plan.predicted_seconds == pytest.approx(1.6)
