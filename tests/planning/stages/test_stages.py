"""Plans over several nodes: what they promise, on random models and clusters, and what their parts say."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from devmap.config.model.nodes import flattened
from devmap.config.values.device import Tier, parse_device
from devmap.errors import ResolutionError
from devmap.inventory.model import Inventory, Tensor
from devmap.plan.stage_plan import stage_assignment
from devmap.planning.resolve import resolve
from devmap.planning.result.verify import faults_of
from devmap.planning.stages.cluster import on_every_node
from tests.planning.planning_models import chain, config, decoder, inventories, rows

if TYPE_CHECKING:
    from devmap.plan.model import Plan


def cluster(
    *memories: list[int], network: dict[str, Any] | None = None, rates: bool = False, tiers: bool = True
) -> dict[str, Any]:
    """Nodes `a`, `b`, ... with accelerators of so much memory each, a CPU and a disk."""
    speed = {"flops": {"float32": 1e9}, "memory_bandwidth": 1e9, "host_to_device": 1e8} if rates else {}
    slow = {"flops": {"float32": 1e8}, "memory_bandwidth": 1e8} if rates else {}
    nodes = {}
    for name, amounts in zip("abcdefgh", memories, strict=False):
        devices: dict[Any, Any] = {
            str(index): {"memory": nbytes, **speed} for index, nbytes in enumerate(amounts)
        }
        if tiers:
            devices["cpu"] = {"memory": 10**9, **slow}
            devices["disk"] = {"memory": 10**9, **({"disk": 1e7} if rates else {})}
        nodes[name] = {"devices": devices}
    found: dict[str, Any] = {"nodes": nodes}
    if network is not None:
        found["network"] = network
    return found


def budgets(machine: dict[str, Any], lower: dict[str, int]) -> dict[str, int]:
    """Return `max_memory` for the accelerators of a cluster, and so much of each lower tier on every node."""
    found = {
        f"{name}/{key}": known["memory"]
        for name, node in machine["nodes"].items()
        for key, known in node["devices"].items()
        if key.isdecimal()
    }
    return {**found, **lower}


def planned(inventory: Inventory, keys: dict[str, Any]) -> Plan | None:
    try:
        return resolve(config(**keys), inventory)
    except ResolutionError as error:
        if "failed verification" in error.message:
            raise
        return None


@st.composite
def cases(draw: st.DrawFn) -> tuple[Inventory, dict[str, Any]]:
    inventory = draw(st.one_of(rows(), rows(), inventories()))
    share = st.integers(inventory.nbytes // 4, max(2, inventory.nbytes * 2 // 3))
    nodes = draw(st.lists(st.lists(share, min_size=1, max_size=2), min_size=2, max_size=3))
    machine = cluster(*nodes)
    lower: dict[str, int] = {}
    if draw(st.booleans()):
        lower["cpu"] = draw(share)
    if draw(st.booleans()):
        lower[draw(st.sampled_from(["disk", "a/disk"]))] = draw(share)
    return inventory, {
        "machine": machine,
        "max_memory": budgets(machine, lower),
        "device_map": draw(st.sampled_from(["auto", "balanced", "sequential"])),
    }


@st.composite
def worked_cases(draw: st.DrawFn) -> tuple[Inventory, dict[str, Any]]:
    """Decoders with a workload, on accelerators that hold some of it and host memory for the rest."""
    inventory = decoder(draw(st.integers(2, 8)))
    share = st.integers(inventory.nbytes // 2, 6 * inventory.nbytes)
    machine = cluster(*draw(st.lists(st.lists(share, min_size=1, max_size=2), min_size=1, max_size=3)))
    workload: dict[str, Any] = {
        "kind": draw(st.sampled_from(["inference", "training"])),
        "batch_size": draw(st.integers(1, 6)),
        "sequence_length": draw(st.integers(1, 24)),
    }
    if workload["kind"] == "training":
        workload["optimizer"] = draw(st.sampled_from(["sgd", "adamw"]))
        if draw(st.booleans()):
            workload["trainable"] = ["lm_head"]
    return inventory, {
        "machine": machine,
        "max_memory": budgets(machine, {"cpu": draw(share)} if draw(st.booleans()) else {}),
        "workload": workload,
        "offload": {"buffers": draw(st.booleans())},
        "parallel": {
            "schedule": draw(st.sampled_from(["gpipe", "1f1b"])),
            "microbatches": draw(st.integers(1, 6)),
        },
    }


@settings(max_examples=300, deadline=None)
@given(st.one_of(cases(), worked_cases()))
def test_every_plan_keeps_its_promises_and_streams_from_its_own_node(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    inventory, keys = case
    plan = planned(inventory, keys)
    event("no plan" if plan is None else "streams" if plan.streamed else "fits")
    if plan is None:
        return
    asked = config(**keys)
    assert plan.pipeline is not None
    stages = plan.pipeline.stages
    assert [stage.index for stage in stages] == list(range(len(stages)))
    covered = sorted(at for stage in stages for start, end in stage.spans for at in range(start, end))
    assert covered == list(range(len(plan.placements)))
    for stage in stages:
        for start, end in stage.spans:
            for placement in plan.placements[start:end]:
                assert placement.home.node == placement.executes_on.node == stage.node
                if placement.home.is_accelerator:
                    assert placement.home == stage.device
    for use in plan.devices:
        assert use.free_bytes is None or use.free_bytes >= 0
    machine = asked.machine
    assert machine is not None
    assert not list(faults_of(plan, inventory, on_every_node(asked, flattened(machine))))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=4, max_size=9), st.integers(2, 4))
def test_balanced_makes_the_largest_stage_as_small_as_any_contiguous_split(
    sizes: list[int], stages: int
) -> None:
    machine = cluster(*[[1000]] * stages)
    plan = resolve(
        config(machine=machine, max_memory=budgets(machine, {}), device_map="balanced"), chain(*sizes)
    )
    largest = max(use.weight_bytes for use in plan.devices if use.device.is_accelerator)
    cuts = combinations(range(1, len(sizes)), stages - 1)
    best = min(
        max(sum(sizes[start:end]) for start, end in zip((0, *cut), (*cut, len(sizes)), strict=True))
        for cut in cuts
    )
    assert largest == best


def use_of(plan: Plan, device: str) -> dict[str, int]:
    use = plan.use_of(parse_device(device))
    assert use is not None
    return {charge.what: charge.nbytes for charge in use.charges}


def of_decoder(**keys: Any) -> Plan:
    machine = cluster([100_000], [100_000], [100_000])
    return resolve(config(machine=machine, max_memory=budgets(machine, {}), **keys), decoder(layers=6))


@pytest.mark.parametrize(
    ("schedule", "held"), [("gpipe", [4, 4, 4]), ("1f1b", [3, 2, 1])], ids=["gpipe", "1f1b"]
)
def test_training_keeps_the_activations_of_the_microbatches_in_flight(schedule: str, held: list[int]) -> None:
    plan = of_decoder(
        parallel={"schedule": schedule, "microbatches": 4},
        workload={"kind": "training", "batch_size": 4, "sequence_length": 16},
    )
    one = 1 * 16 * 8 * 34  # a microbatch of one sequence, 16 tokens, 8 hidden, 34 bytes
    layers = [
        sum(
            1
            for start, end in stage.spans
            for placement in plan.placements[start:end]
            if "layers" in placement.path
        )
        for stage in plan.pipeline.stages  # type: ignore[union-attr]
    ]
    assert sum(layers) == 6
    found = [use_of(plan, device)["activations"] for device in ("a/0", "b/0", "c/0")]
    assert found == [count * one * flight for count, flight in zip(layers, held, strict=True)]
    border = 1 * 16 * 8 * 2
    received = [use_of(plan, device).get("receive buffers") for device in ("a/0", "b/0", "c/0")]
    assert received == [4 * border, 8 * border, 4 * border]
    assert use_of(plan, "c/0")["logits"] == 1 * 16 * 32 * 4 * 2
    assert "logits" not in use_of(plan, "b/0")


def test_inference_keeps_the_whole_batch_s_cache_and_two_receive_buffers() -> None:
    plan = of_decoder(parallel={"microbatches": 2}, workload={"batch_size": 4, "sequence_length": 16})
    alone = resolve(
        config(max_memory={0: 10**6}, workload={"batch_size": 4, "sequence_length": 16}), decoder(layers=6)
    )
    cache = sum(use_of(plan, device)["kv cache"] for device in ("a/0", "b/0", "c/0"))
    assert cache == use_of(alone, "0")["kv cache"]
    assert use_of(plan, "a/0")["activations"] * 2 == use_of(alone, "0")["activations"]
    border = 2 * 16 * 8 * 2
    assert [use_of(plan, device).get("receive buffers") for device in ("a/0", "b/0", "c/0")] == [
        None,
        2 * border,
        2 * border,
    ]
    assert use_of(plan, "c/0")["logits"] == 2 * 32 * 4


def test_a_tie_over_two_stages_lies_in_both() -> None:
    machine = cluster([100], [100])
    plan = resolve(
        config(machine=machine, max_memory=budgets(machine, {})),
        chain(10, 20, 20, 10, ties=(("m0.weight", "m3.weight"),)),
    )
    assert [(copy.tensor, str(copy.device), copy.nbytes) for copy in plan.tied_copies] == [
        ("m3.weight", "b/0", 10)
    ]
    assert sum(use.weight_bytes for use in plan.devices) == 60


def test_what_spills_goes_to_the_node_of_its_stage() -> None:
    machine = cluster([25], [25])
    plan = resolve(config(machine=machine, max_memory=budgets(machine, {"cpu": 40})), chain(*[10] * 6))
    lower = {str(use.device): use.weight_bytes for use in plan.devices if use.device.tier == Tier.CPU}
    assert sum(lower.values()) > 0
    assert all(placement.home.node == placement.executes_on.node for placement in plan.placements)


def test_fastest_gives_a_slow_accelerator_less() -> None:
    machine = cluster([10**6], [10**6], network={"bandwidth": "1GB/s", "latency": "5us"}, rates=True)
    machine["nodes"]["b"]["devices"]["0"]["memory_bandwidth"] = 2.5e8
    machine["nodes"]["b"]["devices"]["0"]["flops"] = {"float32": 2.5e8}
    plan = resolve(
        config(machine=machine, max_memory=budgets(machine, {}), device_map="fastest"), chain(*[1000] * 10)
    )
    weights = [use.weight_bytes for use in plan.devices if use.device.is_accelerator]
    assert weights == [8000, 2000]
    assert plan.pipeline is not None
    assert plan.pipeline.step_seconds is not None


def test_a_norm_that_is_registered_before_its_blocks_is_in_their_last_stage() -> None:
    inventory = decoder(layers=4)
    modules = dict(inventory.modules)
    order = ["", "model", "model.embed", "model.final_layer_norm"]
    modules = {
        **{path: modules.get(path, "LayerNorm") for path in order},
        **{path: kind for path, kind in modules.items() if path not in order},
    }
    norm = Tensor("model.final_layer_norm.weight", (8,), "bfloat16")
    tensors: dict[str, Tensor] = {}
    for name, tensor in inventory.tensors.items():
        tensors[name] = tensor
        if name == "model.embed.weight":
            tensors[norm.name] = norm
    moved = Inventory(modules, tensors, (), ("Block",), inventory.architecture)
    machine = cluster([100_000], [100_000])
    plan = resolve(config(machine=machine, max_memory=budgets(machine, {})), moved)
    assert plan.pipeline is not None
    assert stage_assignment(plan)["model.final_layer_norm"] == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"parallel": {"pipeline": 3}}, "parallel.pipeline is 3, and the nodes offer 2 accelerators"),
        ({"parallel": {"tensor": 2}}, "parallel.tensor is 2"),
        ({"device_map": "balanced_low_0"}, "balanced_low_0 keeps device 0 of one machine light"),
        ({"device_map": "fastest"}, "needs the rates of every offered device"),
        ({"device_map": {"": "auto", "m0": "b/0", "m3": "a/0"}}, "the stages are not contiguous: pins send"),
        ({"device_map": {"": "auto", "m0": "c/0"}}, "device c/0, which is not offered"),
        ({"forbid": {"c/0": ["m0"]}}, "forbid names device c/0, which no node has"),
        ({"max_memory": {"a/0": 12, "b/0": 12}}, "16 B are missing"),
        ({"max_memory": {"a/0": 9, "b/0": 99}}, "stage 0 (device a/0) has no room for 'm0'"),
        ({"device_map": "a/0"}, "the map leaves no module for stage 1 (device b/0): 'm3' would be its first"),
        (
            {"device_map": {"": "a/0", "m3": "b/0"}, "max_memory": {"a/0": 25, "b/0": 99}},
            "stage 0 (device a/0) has no room for 'm2', which stage 1 may not hold",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(keys: dict[str, Any], message: str) -> None:
    machine = cluster([100], [100])
    with pytest.raises(ResolutionError) as caught:
        resolve(
            config(**{"machine": machine, "max_memory": budgets(machine, {}), **keys}), chain(10, 10, 10, 10)
        )
    assert message in caught.value.message
    assert caught.value.help


def test_a_change_that_is_offered_makes_it_fit() -> None:
    machine = cluster([3000], [3000])
    keys = {
        "machine": machine,
        "max_memory": budgets(machine, {}),
        "workload": {"batch_size": 64, "sequence_length": 32},
    }
    with pytest.raises(ResolutionError) as caught:
        resolve(config(**keys), decoder(layers=4))
    assert caught.value.changes
    assert any("batch_size" in change or "cpu" in change for change in caught.value.changes)
