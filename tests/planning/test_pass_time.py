"""What a pass costs, how long it is predicted to take, and what a plan says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from devmap.config.model.machines import preset
from devmap.config.model.placement_config import MachineProfile, Workload
from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.config.values.strategy import WorkloadKind
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.planning.fastest.costs import FEMTOSECONDS, PassShape
from devmap.planning.fastest.schedule import PassTime, pass_time
from devmap.planning.placement.execution import streamed
from devmap.planning.resolve import resolve
from tests.planning.fastest_models import costs, machine, posed
from tests.planning.planning_models import chain, config, decoder

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST, SECOND = Device(Tier.ACCELERATOR, 0), Device(Tier.ACCELERATOR, 1)
SLOW_LINK = {
    0: {"memory_bandwidth": 1000.0, "flops": 1e12, "host_to_device": 10.0},
    1: {"memory_bandwidth": 1000.0, "flops": 1e12, "host_to_device": 10.0},
    "cpu": {"memory_bandwidth": 1e6, "flops": 1e12},
    "disk": {"disk": 2.0},
}


def timed(
    homes: Sequence[Device],
    *,
    rates: dict[Any, dict[str, float]] | None = None,
    in_place: frozenset[int] = frozenset(),
    slots: int = 2,
) -> PassTime:
    """The time of modules of 100 bytes each in these homes."""
    profile = machine(SLOW_LINK if rates is None else rates)
    inventory = chain(*[100] * len(homes))
    problem = posed(inventory, profile, max_memory={0: 10**6, 1: 10**6, "cpu": 10**6, "disk": 10**6})
    time = pass_time(
        costs(problem, inventory, profile), homes, streamed(problem, homes, in_place, most_slots=slots)
    )
    assert time is not None
    return time


def seconds(time: PassTime) -> float:
    return time.latency / FEMTOSECONDS


def test_what_is_resident_takes_the_sum_of_its_compute() -> None:
    assert seconds(timed([FIRST] * 4)) == pytest.approx(0.4)
    assert seconds(timed([FIRST, FIRST, SECOND, SECOND])) == pytest.approx(0.4)


def test_two_slots_hide_the_compute_behind_the_copies_and_one_does_not() -> None:
    homes = [FIRST, CPU, CPU, CPU]
    assert seconds(timed(homes)) == pytest.approx(30.0)
    assert seconds(timed(homes, slots=1)) == pytest.approx(30.3, abs=0.11)


def test_two_slots_hide_the_copies_behind_the_compute_when_residents_are_spread_evenly() -> None:
    """4 resident blocks for each streamed one, whose copy takes as long as the five compute: the bound.

    In one block it is missed.
    """
    rates = {**SLOW_LINK, 0: {"memory_bandwidth": 50.0, "flops": 1e12, "host_to_device": 10.0}}
    even = timed([FIRST, FIRST, CPU, FIRST, FIRST] * 6, rates=rates)
    assert seconds(even) == pytest.approx(60.0)
    assert even.latency == even.busy["compute", FIRST]
    assert seconds(timed([FIRST] * 24 + [CPU] * 6, rates=rates)) > 1.5 * seconds(even)


def test_contiguous_runs_on_two_devices_add_up_and_taking_turns_copies_on_both_links_at_once() -> None:
    runs = timed([FIRST, *[CPU] * 6, SECOND, *[CPU] * 6])
    turns = timed([FIRST, CPU, SECOND, CPU] * 6)
    assert seconds(runs) == pytest.approx(
        120.0 - 4 * 10.0, rel=0.2
    )  # each device prefetches two blocks while the other works
    assert seconds(turns) == pytest.approx(60.0, rel=0.05)
    assert turns.binding[0] == "copies"


def test_a_pass_is_never_faster_than_its_disk() -> None:
    time = timed([FIRST, DISK, DISK, FIRST])
    assert seconds(time) == pytest.approx(100.0)
    assert time.binding == ("reads", DISK)


def test_copies_and_the_cpu_share_the_memory_of_the_host() -> None:
    rates = {**SLOW_LINK, "cpu": {"memory_bandwidth": 20.0, "flops": 1e12}}
    time = timed([FIRST, CPU, CPU, CPU, FIRST, CPU], rates=rates, in_place=frozenset([1, 5]))
    assert time.busy["memory", CPU] == 20 * FEMTOSECONDS
    assert seconds(time) >= 20.0


def test_the_slowest_stage_is_the_throughput_of_a_pipeline() -> None:
    time = timed([FIRST, FIRST, FIRST, SECOND])
    assert time.stage / FEMTOSECONDS == pytest.approx(0.3)


def mixture() -> Inventory:
    """An embedding of 32 rows, a block of 8 fused experts, a block with one module per expert."""
    modules = {
        "": "M",
        "embed": "Embedding",
        "block": "Block",
        "block.experts": "Experts",
        "each": "ModuleList",
    }
    tensors = {"embed.weight": Tensor("embed.weight", (32, 8), "float32")}
    tensors["block.experts.gate"] = Tensor("block.experts.gate", (8, 4, 4), "float32")
    modules["each.experts"] = "ModuleList"
    for expert in range(8):
        path = f"each.experts.{expert}"
        modules[path] = "Linear"
        tensors[f"{path}.weight"] = Tensor(f"{path}.weight", (4, 4), "float32")
    figures = {
        "hidden_size": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 64,
    }
    return Inventory(modules, tensors, (), ("Block",), Architecture("mixtral", "MForCausalLM", figures))


@pytest.mark.parametrize(("tokens", "rows", "share"), [(1, 1, 0.25), (2, 2, 1 - 0.75**2), (100, 32, 1.0)])
def test_an_embedding_reads_some_rows_and_a_token_some_experts(tokens: int, rows: int, share: float) -> None:
    inventory = mixture()
    profile = machine(
        {
            0: {"memory_bandwidth": 1.0, "flops": 1e30, "host_to_device": 1.0},
            "cpu": {"memory_bandwidth": 1.0, "flops": 1e30},
        }
    )
    problem = posed(inventory, profile, max_memory={0: 10**6, "cpu": 10**6})
    found = costs(problem, inventory, profile, PassShape(1, tokens))
    place = {atom.path: at for at, atom in enumerate(problem.atoms)}
    compute = [time / FEMTOSECONDS for time in found.compute[FIRST]]
    assert compute[place["embed"]] == rows * 8 * 4
    assert compute[place["block"]] == pytest.approx(8 * 16 * 4 * share, abs=1)
    assert found.copy[FIRST][place["block"]] == 8 * 16 * 4 * FEMTOSECONDS  # a block is copied whole
    assert found.copy[FIRST][place["each.experts.3"]] / FEMTOSECONDS == pytest.approx(16 * 4 * share, abs=1)


def test_products_bind_at_a_large_batch_and_reads_at_a_small_one() -> None:
    inventory = decoder()
    profile = machine({0: {"memory_bandwidth": 100.0, "flops": 1000.0, "host_to_device": 1.0}})
    problem = posed(inventory, profile, max_memory={0: 10**6})
    block = next(at for at, atom in enumerate(problem.atoms) if atom.path == "model.layers.0")
    parameters = 8 * 8 + 16 * 8
    small = costs(problem, inventory, profile, PassShape(1, 1)).compute[FIRST][block]
    large = costs(problem, inventory, profile, PassShape(4, 25)).compute[FIRST][block]
    assert small / FEMTOSECONDS == pytest.approx(2 * parameters / 100)
    assert large / FEMTOSECONDS == pytest.approx(2 * parameters * 100 / 1000)


def test_the_shape_of_a_pass_is_a_decoding_step_or_the_whole_sequence() -> None:
    reader = Inventory(
        {"": "M"}, {}, (), (), Architecture("bert", "BertModel", {"max_position_embeddings": 512})
    )
    assert PassShape.of(None, decoder()) == PassShape(1, 1)
    assert PassShape.of(Workload(batch_size=8), decoder()) == PassShape(8, 1)
    assert PassShape.of(Workload(kind=WorkloadKind.TRAINING, sequence_length=32), decoder()) == PassShape(
        1, 32
    )
    assert PassShape.of(None, reader) == PassShape(1, 512)
    assert PassShape.of(Workload(sequence_length=128, batch_size=4), reader) == PassShape(4, 128)


@pytest.mark.parametrize("strategy", ["auto", "balanced", "fastest"])
def test_every_plan_on_a_machine_with_rates_has_a_time_a_bound_and_a_reason(strategy: str) -> None:
    plan = resolve(
        config(device_map=strategy, machine="2x4090", max_memory={0: 3000, 1: 3000, "cpu": 10**6}), decoder()
    )
    assert plan.predicted_seconds is not None
    assert plan.bound_seconds is not None
    assert 0 < plan.bound_seconds <= plan.predicted_seconds
    assert any(
        reason.startswith("A pass of 1 token takes about") and "bound by" in reason for reason in plan.reasons
    )


def test_the_machine_may_come_from_the_caller_the_config_or_a_preset() -> None:
    keys = {"max_memory": {0: 10**6}}
    profile = preset("1x4090")
    assert profile is not None
    by_caller = resolve(config(**keys), decoder(), machine=profile)
    by_name = resolve(config(**keys, machine="1x4090"), decoder())
    by_config = resolve(config(**keys).model_copy(update={"machine": profile}), decoder())
    assert by_caller.predicted_seconds == by_name.predicted_seconds == by_config.predicted_seconds
    assert by_caller.predicted_seconds is not None


def test_without_rates_nothing_is_predicted() -> None:
    bare = MachineProfile(name="this machine", devices={FIRST: machine({0: {}}).devices[FIRST]})
    for plan in (
        resolve(config(max_memory={0: 10**6}), decoder()),
        resolve(config(max_memory={0: 10**6}), decoder(), machine=bare),
    ):
        assert plan.predicted_seconds is None
        assert plan.bound_seconds is None
        assert not any("A pass of" in reason for reason in plan.reasons)


def test_a_plan_that_streams_over_a_link_of_unknown_rate_has_no_time() -> None:
    profile = machine(
        {0: {"memory_bandwidth": 1.0, "flops": 1.0}, "cpu": {"memory_bandwidth": 1.0, "flops": 1.0}}
    )
    streams = resolve(config(max_memory={0: 35, "cpu": 100}), chain(10, 10, 10, 10), machine=profile)
    fits = resolve(config(max_memory={0: 40, "cpu": 100}), chain(10, 10, 10, 10), machine=profile)
    assert streams.streamed
    assert streams.predicted_seconds is None
    assert fits.predicted_seconds is not None
