"""A plan over several nodes for others: the command line of each node, and layer splits that engines take.

torchrun's options are those of torch.distributed.run; vLLM reads `VLLM_PP_LAYER_PARTITION` beside its
`--pipeline-parallel-size`; torchtitan takes `module_fqns_per_model_part` in its section `parallelism`.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

from devmap.config.values.strategy import Schedule
from devmap.errors import UsageError
from devmap.planning.problem.workload import layer_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.inventory.model import Inventory
    from devmap.plan.model import Pipeline, Plan, Stage

__all__ = ["EXPORTS", "render_split", "render_torchrun"]

EXPORTS = ("vllm", "torchtitan")
"""Engines whose layer split can be printed."""

_PORT = 29500


def render_torchrun(plan: Plan, arguments: Sequence[str]) -> str:
    """Return the command line of each node, for a shell; `arguments` are those of `devmap run`.

    A rank is a stage: nodes are given in the order of the pipeline.

    Raises:
        UsageError: the plan is for one machine.
    """
    pipeline = _pipeline_of(plan, "--torchrun")
    first = pipeline.nodes[0]
    lines = [f"# {len(pipeline.stages)} ranks; write the address of node {first} where its name stands"]
    for number, node in enumerate(pipeline.nodes):
        ranks = sum(stage.node == node for stage in pipeline.stages)
        command = (
            f"torchrun --nnodes={len(pipeline.nodes)} --node-rank={number} --nproc-per-node={ranks} "
            f"--master-addr={first} --master-port={_PORT} -m devmap run {shlex.join(arguments)}"
        )
        lines += [f"# on node {node}", command]
    return "\n".join(lines) + "\n"


def render_split(plan: Plan, inventory: Inventory, engine: str) -> str:
    """Return the layer split of a plan as an engine of `EXPORTS` takes it, with what it leaves out.

    Raises:
        UsageError: the plan is for one machine, or its stages are not cut between layers of one list.
    """
    pipeline = _pipeline_of(plan, f"--export {engine}")
    layers = _layers(plan, inventory, pipeline)
    return _for_vllm(pipeline, layers) if engine == "vllm" else _for_torchtitan(plan, pipeline)


def _pipeline_of(plan: Plan, option: str) -> Pipeline:
    if plan.pipeline is None:
        raise UsageError(
            f"{option} is for plans over several nodes, and this one is for one machine",
            help="name the machines in machine.nodes: {a: 8xh100, b: 8xh100}",
        )
    return plan.pipeline


def _paths(plan: Plan, stage: Stage) -> list[str]:
    return [plan.placements[at].path for at in stage.numbers]


def _layers(plan: Plan, inventory: Inventory, pipeline: Pipeline) -> list[int]:
    """Return how many layers each stage has.

    Raises:
        UsageError: the model has no one list of layers, or a stage has a part of one, or none.
    """
    lists = layer_lists(inventory)
    if len(lists) != 1:
        raise UsageError(
            f"the model has {len(lists)} lists of layers, and engines split one",
            help="take the split from `devmap plan --format json`",
        )
    layers = set(lists[0])
    counts = [sum(path in layers for path in _paths(plan, stage)) for stage in pipeline.stages]
    if sum(counts) != len(layers) or 0 in counts:
        raise UsageError(
            "a stage has no whole layer, and engines split a model between layers",
            help="offer fewer accelerators, or leave no_split_module_classes out",
        )
    return counts


def _for_vllm(pipeline: Pipeline, layers: Sequence[int]) -> str:
    partition = ",".join(map(str, layers))
    return (
        f"# {sum(layers)} layers over {len(layers)} stages; vLLM keeps its own KV cache and activations\n"
        f"export VLLM_PP_LAYER_PARTITION={partition}\n"
        f"vllm serve MODEL --pipeline-parallel-size {len(pipeline.stages)} --tensor-parallel-size 1\n"
    )


_TORCHTITAN_NAMES = {"embed_tokens": "tok_embeddings", "lm_head": "output"}
_TORCHTITAN_SCHEDULES = {Schedule.GPIPE.value: "GPipe", Schedule.ONE_F_ONE_B.value: "1F1B"}


def _for_torchtitan(plan: Plan, pipeline: Pipeline) -> str:
    parts = [
        [_TORCHTITAN_NAMES.get(name, name) for path in _paths(plan, stage) if (name := _short(path))]
        for stage in pipeline.stages
    ]
    rows = ",\n".join(f"  {json.dumps(part)}" for part in parts)
    return (
        "# module names as torchtitan's Llama has them; other models of it may name theirs otherwise\n"
        "[parallelism]\n"
        f"pipeline_parallel_degree = {len(pipeline.stages)}\n"
        f'pipeline_parallel_schedule = "{_TORCHTITAN_SCHEDULES[pipeline.schedule]}"\n'
        f"module_fqns_per_model_part = [\n{rows},\n]\n"
    )


def _short(path: str) -> str:
    """Return a path without the model's prefix; empty for what torchtitan computes itself."""
    name = path.removeprefix("model.")
    return "" if name.startswith("rotary_emb") else name
