"""One rank's part of a plan over several nodes: a plan of one machine, as that stage's node sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devmap.plan.fold import covers
from devmap.plan.model import DeviceUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.values.device import Device
    from devmap.plan.model import Placement, Plan

__all__ = ["plan_of_stage", "stage_assignment"]


def stage_assignment(plan: Plan) -> Mapping[str, int]:
    """Return the stage of each module or tensor that the plan places, by its path; empty for one machine."""
    if plan.pipeline is None:
        return {}
    found = {plan.placements[at].path: stage.index for stage in plan.pipeline.stages for at in stage.numbers}
    return {placement.path: found[placement.path] for placement in plan.placements}


def plan_of_stage(plan: Plan, index: int) -> Plan:
    """Return the plan of one stage alone: its modules, on devices as its own node calls them (`0`, `cpu`).

    Sizes are bytes. Host memory and disk hold what this stage has there, whatever other stages of the node
    have beside it. A tensor that is tied to one of another stage is this stage's own.

    Raises:
        ValueError: the plan is for one machine, or has no such stage.
    """
    if plan.pipeline is None or not 0 <= index < len(plan.pipeline.stages):
        count = 0 if plan.pipeline is None else len(plan.pipeline.stages)
        msg = f"there is no stage {index}: the plan has {count}"
        raise ValueError(msg)
    stage = plan.pipeline.stages[index]
    placements = tuple(_local(plan.placements[at]) for at in stage.numbers)
    device_map = {placement.path: placement.home.plain for placement in placements}
    ties = [tuple(name for name in group if covers(device_map, name) is not None) for group in plan.ties]
    return replace(
        plan,
        device_map=device_map,
        placements=placements,
        devices=tuple(
            _use_of_stage(use, stage.device, placements)
            for use in plan.devices
            if use.device == stage.device or (use.device.node == stage.node and not use.device.is_accelerator)
        ),
        ties=tuple(group for group in ties if len(group) > 1),
        tied_copies=(),
        reasons=(),
        predicted_seconds=None,
        bound_seconds=None,
        pipeline=None,
    )


def _local(placement: Placement) -> Placement:
    return placement._replace(home=placement.home.on(None), executes_on=placement.executes_on.on(None))


def _use_of_stage(use: DeviceUse, device: Device, placements: tuple[Placement, ...]) -> DeviceUse:
    """Return the figures of one device for one stage; of a tier that stages share only what is this one's."""
    own = use.device.on(None)
    if use.device == device:
        return replace(use, device=own)
    held = sum(placement.home_bytes for placement in placements if placement.home == own)
    return DeviceUse(own, use.capacity_bytes, held)
