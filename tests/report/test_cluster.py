"""Command lines and layer splits of plans over several nodes."""

from __future__ import annotations

import json
import shlex
import tomllib

import pytest

from devmap.errors import UsageError
from devmap.planning.resolve import resolve
from devmap.report.cluster import render_split, render_torchrun
from devmap.report.plan import render_plan, render_plan_json
from tests.planning.planning_models import chain, config, decoder

MACHINE = {
    "nodes": {
        "a": {"devices": {"0": {"memory": 9000}, "1": {"memory": 9000}}},
        "b": {"devices": {"0": {"memory": 9000}}},
    }
}
INVENTORY = decoder(layers=6)
PLAN = resolve(
    config(machine=MACHINE, max_memory={0: 9000, 1: 9000}, parallel={"microbatches": 2, "schedule": "gpipe"}),
    INVENTORY,
)


def test_each_node_gets_the_command_line_of_its_ranks() -> None:
    lines = render_torchrun(PLAN, ["my model.devmap.yaml", "--set", "model.dtype=bfloat16"]).splitlines()
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert [command[:4] for command in commands] == [
        ["torchrun", "--nnodes=2", f"--node-rank={rank}", f"--nproc-per-node={count}"]
        for rank, count in ((0, 2), (1, 1))
    ]
    run = ["run", "my model.devmap.yaml", "--set", "model.dtype=bfloat16"]
    assert all(command[-4:] == run for command in commands)


def test_the_split_for_vllm_counts_every_layer() -> None:
    text = render_split(PLAN, INVENTORY, "vllm")
    partition = text.partition("VLLM_PP_LAYER_PARTITION=")[2].splitlines()[0]
    assert sum(map(int, partition.split(","))) == 6
    assert "--pipeline-parallel-size 3" in text


def test_the_split_for_torchtitan_is_toml_and_names_every_module_once() -> None:
    section = tomllib.loads(render_split(PLAN, INVENTORY, "torchtitan"))["parallelism"]
    assert section["pipeline_parallel_degree"] == 3
    assert section["pipeline_parallel_schedule"] == "GPipe"
    named = [name for part in section["module_fqns_per_model_part"] for name in part]
    assert named == ["embed", *(f"layers.{layer}" for layer in range(6)), "output"]


def test_what_no_engine_takes_is_refused() -> None:
    alone = resolve(config(max_memory={0: 100}), chain(10, 10))
    with pytest.raises(UsageError, match="--torchrun is for plans over several nodes"):
        render_torchrun(alone, [])
    leaves = chain(10, 10, 10)
    plan = resolve(config(machine=MACHINE, max_memory={0: 9000, 1: 9000}), leaves)
    with pytest.raises(UsageError, match="0 lists of layers"):
        render_split(plan, leaves, "vllm")


def test_the_text_and_the_json_of_a_plan_tell_its_stages() -> None:
    text = render_plan(PLAN, INVENTORY)
    assert "one step: rates are not known; 3 stages on 2 nodes, 2 microbatches by gpipe, bubble 33%" in text
    assert "2 cuts, 1 of them between nodes: device a/1 to device b/0 before model.layers." in text
    pipeline = json.loads(render_plan_json(PLAN))["pipeline"]
    assert [(stage["node"], stage["device"]) for stage in pipeline["stages"]] == [
        ("a", "a/0"),
        ("a", "a/1"),
        ("b", "b/0"),
    ]
    spans = [span for stage in pipeline["stages"] for span in stage["placements"]]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(PLAN.placements)
