"""One rank's part of a plan over several nodes."""

from __future__ import annotations

import pytest

from devmap.plan.stage_plan import plan_of_stage, stage_assignment
from devmap.planning.resolve import resolve
from tests.planning.planning_models import chain, config


def test_the_stages_of_a_plan_are_plans_of_their_own_nodes() -> None:
    machine = {
        "nodes": {
            name: {"devices": {"0": {"memory": 25}, "1": {"memory": 25}, "cpu": {"memory": 100}}}
            for name in "ab"
        }
    }
    memory = {0: 25, 1: 25, "cpu": 40}
    inventory = chain(*[10] * 11, 10, ties=(("m0.weight", "m11.weight"),))
    plan = resolve(config(machine=machine, max_memory=memory), inventory)
    assert plan.pipeline is not None
    parts = [plan_of_stage(plan, stage.index) for stage in plan.pipeline.stages]
    assignment = stage_assignment(plan)
    assert list(assignment) == [placement.path for placement in plan.placements]
    for stage, part in zip(plan.pipeline.stages, parts, strict=True):
        assert set(part.device_map.values()) <= {stage.device.index, "cpu"}
        assert {placement.path for placement in part.placements} == {
            path for path, index in assignment.items() if index == stage.index
        }
        for use in part.devices:
            held = sum(each.home_bytes for each in part.placements if each.home == use.device)
            assert use.weight_bytes == held
            assert use.free_bytes is not None
            assert use.free_bytes >= 0
        assert part.pipeline is None
        assert not part.ties
    assert any(part.streamed for part in parts)
    weights = [use.weight_bytes for use in plan.devices]
    assert sum(weights) == sum(use.weight_bytes for part in parts for use in part.devices) == 120


def test_a_stage_that_is_not_there_is_said_to_be_absent() -> None:
    plan = resolve(config(max_memory={0: 100}), chain(10, 10))
    assert stage_assignment(plan) == {}
    with pytest.raises(ValueError, match="there is no stage 0: the plan has 0"):
        plan_of_stage(plan, 0)
