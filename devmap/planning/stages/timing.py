"""What a pipeline's step takes: compute of each stage, transfers over its borders, the fill and drain.

With p stages, M microbatches, c_s the time of a microbatch in stage s and x_s that of the transfer behind it,
the first microbatch is through after the sum of all c_s and x_s. Each further one follows after

- the largest c_s + x_s under torch's schedules, which wait for a transfer before they go on (measured over
  modelled 0.96 to 1.02 with GPipe on emulated nodes), and
- the larger of the largest c_s and the largest x_s where borders are overlapped with receives posted one
  microbatch ahead, as our inference does.

A generating model's next token needs the last one: with M microbatches in turn a step takes the larger of one
microbatch's way through all stages and M times the slowest stage. Training runs each stage three times as
long (a forward and a backward of twice its arithmetic) and sends gradients back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.model.placement_config import MachineProfile
from devmap.config.values.device import CPU, DISK
from devmap.config.values.strategy import WorkloadKind
from devmap.plan.model import Pipeline, Stage
from devmap.planning.fastest.costs import FEMTOSECONDS, PassShape, costs_of
from devmap.planning.fastest.schedule import pass_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.problem.model import PlacementProblem, Solution
    from devmap.planning.problem.stage_charges import StageCharges
    from devmap.planning.stages.cluster import Cluster

__all__ = ["node_machine", "pipeline_of", "step_shape", "transfer_seconds"]

_TRAINING_FACTOR = 3
"""A backward pass multiplies twice what its forward pass does."""


def step_shape(config: PlacementConfig, inventory: Inventory, microbatches: int) -> PassShape:
    """Return what one stage computes of a step at a time: one microbatch."""
    whole = PassShape.of(config.workload, inventory)
    return PassShape(-(-whole.batch // microbatches), whole.tokens)


def node_machine(cluster: Cluster, stage: int) -> MachineProfile:
    """Return the machine of one stage as its node sees it: its accelerator, host memory and disk."""
    device = cluster.stages[stage]
    own = cluster.machine.devices
    found = {
        each: own[each.on(device.node)]
        for each in (device.on(None), CPU, DISK)
        if each.on(device.node) in own
    }
    return MachineProfile.model_construct(name=str(device.node), devices=found, nodes={}, network=None)


def stage_costs(
    problem: PlacementProblem,
    inventory: Inventory,
    cluster: Cluster,
    stage: int,
    shape: PassShape,
    dtype: str | None,
) -> PassCosts:
    """Return the costs of a stage's atoms, for one microbatch."""
    return costs_of(problem, inventory, node_machine(cluster, stage), shape, dtype=dtype)


def transfer_seconds(cluster: Cluster, stage: int, nbytes: int) -> float | None:
    """Return how long a stage's message to the next takes; None where a rate is not known.

    Within a node it goes through host memory, at the slower of the two accelerators' rates.
    """
    one, other = cluster.stages[stage], cluster.stages[stage + 1]
    assert one.node is not None
    assert other.node is not None
    if one.node == other.node:
        rates = [
            known.host_to_device if (known := cluster.machine.devices.get(device)) else None
            for device in (one, other)
        ]
        known_rates = [rate for rate in rates if rate]
        return nbytes / min(known_rates) if len(known_rates) == len(rates) else None
    network = cluster.network(one.node, other.node)
    if network is None or network.bandwidth is None:
        return None
    return network.latency + nbytes / network.bandwidth


@dataclass(frozen=True)
class StageTimes:
    """Seconds of one microbatch in each stage and over each border; None where a rate is missing."""

    compute: tuple[float | None, ...]
    transfer: tuple[float | None, ...]

    def step(self, microbatches: int, *, training: bool, generating: bool) -> float | None:
        """Return the seconds of a step over all microbatches; None where a rate is missing."""
        if None in self.compute or None in self.transfer:
            return None
        compute = [each for each in self.compute if each is not None]
        transfer = [each for each in self.transfer if each is not None]
        if training:
            compute = [each * _TRAINING_FACTOR for each in compute]
            transfer = [each * 2 for each in transfer]
            slowest = max(map(sum, zip(compute, [*transfer, 0.0], strict=True)))
        else:
            slowest = max([*compute, *transfer])
        once = math.fsum([*compute, *transfer])
        if generating:
            return max(once, microbatches * slowest)
        return once + (microbatches - 1) * slowest


def bubble_of(stages: int, microbatches: int, *, generating: bool) -> float:
    """Return the share of a step for which a stage waits, were all stages alike.

    (p - 1) / (M + p - 1) where a pipeline fills and empties in each step. Generation fills it once: then M
    microbatches go round p stages.

    >>> bubble_of(4, 12, generating=False), bubble_of(4, 1, generating=True), bubble_of(4, 4, generating=True)
    (0.2, 0.75, 0.0)
    """
    if generating:
        return max(0.0, 1 - microbatches / stages)
    return (stages - 1) / (microbatches + stages - 1)


def pipeline_of(
    config: PlacementConfig,
    inventory: Inventory,
    cluster: Cluster,
    charges: StageCharges,
    parts: Sequence[tuple[tuple[int, ...], PlacementProblem, Solution]],
) -> Pipeline:
    """Return the pipeline of stages, each given as the numbers of its atoms, its problem and its solution."""
    microbatches = cluster.parallel.microbatches
    shape = step_shape(config, inventory, microbatches)
    last = len(parts) - 1
    compute = [
        _seconds(problem, inventory, cluster, stage, shape, config.model.dtype, solution)
        for stage, (_, problem, solution) in enumerate(parts)
    ]
    transfer = [transfer_seconds(cluster, stage, charges.borders.step_bytes) for stage in range(last)]
    whole = PassShape.of(config.workload, inventory)
    training = config.workload is not None and config.workload.kind is WorkloadKind.TRAINING
    generating = not training and whole.tokens == 1
    times = StageTimes(tuple(compute), tuple(transfer))
    stages = tuple(
        Stage(
            index,
            cluster.stages[index],
            spans_of(members),
            charges.borders.step_bytes if index < last else 0,
            compute[index],
            transfer[index] if index < last else 0.0,
        )
        for index, (members, _, _) in enumerate(parts)
    )
    return Pipeline(
        stages,
        cluster.parallel.schedule.value,
        microbatches,
        whole.rows,
        bubble_of(len(stages), microbatches, generating=generating),
        times.step(microbatches, training=training, generating=generating),
    )


def _seconds(
    problem: PlacementProblem,
    inventory: Inventory,
    cluster: Cluster,
    stage: int,
    shape: PassShape,
    dtype: str | None,
    solution: Solution,
) -> float | None:
    costs = stage_costs(problem, inventory, cluster, stage, shape, dtype)
    time = pass_time(costs, solution.homes, solution.streaming)
    return None if time is None else time.latency / FEMTOSECONDS


def spans_of(members: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return rising numbers as spans: the first, and the one after the last.

    >>> spans_of([0, 1, 2, 5, 6])
    ((0, 3), (5, 7))
    """
    found: list[tuple[int, int]] = []
    for at in members:
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return tuple(found)
