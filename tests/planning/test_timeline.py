"""The picture of a pass is that of the schedule: same length, no resource at two things at once."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from devmap.config.document import read_config
from devmap.inventory.model import Inventory
from devmap.planning.why.overview import PlanOverview, overview

if TYPE_CHECKING:
    from devmap.planning.fastest.timeline import Timeline

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
INVENTORY = Inventory.from_manifest(EXAMPLES / "llama-3-70b.manifest.yaml")


def planned(**changes: str) -> tuple[PlanOverview, Timeline]:
    overrides = [f"{key}={value}" for key, value in {"machine": "2x4090", **changes}.items()]
    config = read_config(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml", overrides=overrides)
    found = overview(config, INVENTORY, machine=config.machine)
    assert found.timeline is not None
    return found, found.timeline


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_memory": "{0: 23GB, 1: 23GB, cpu: 48GB, disk: 200GB}"},
        {"max_memory": "{0: 23GB, cpu: 20GB, disk: 200GB}"},
        {"max_memory": "{0: 80GB, 1: 80GB}"},
        {"max_memory": "{0: 10GB, 1: 40GB, cpu: 128GB}", "device_map": "fastest"},
        {"max_memory": "{cpu: 150GB}"},
    ],
    ids=["cpu", "disk", "one-card", "resident", "fastest", "host"],
)
def test_the_timeline_is_as_long_as_the_predicted_pass_and_no_resource_overlaps_itself(
    changes: dict[str, str],
) -> None:
    found, timeline = planned(**changes)
    binding = max(timeline.seconds, timeline.host_memory_seconds)
    assert binding == pytest.approx(found.plan.predicted_seconds, rel=1e-9)
    lanes: dict[tuple[str, object], list[tuple[float, float]]] = {}
    for one in timeline.intervals:
        assert one.end_seconds > one.start_seconds
        lanes.setdefault((one.resource, one.device), []).append((one.start_seconds, one.end_seconds))
    for work in lanes.values():
        assert all(earlier[1] <= later[0] + 1e-12 for earlier, later in pairwise(work))
    streamed = [at for at, one in enumerate(found.plan.placements) if one.is_streamed]
    copied = {one.first for one in timeline.intervals if one.resource == "copies"}
    assert copied <= set(streamed)


def test_a_block_is_read_then_copied_then_computed() -> None:
    _, timeline = planned(max_memory="{0: 23GB, cpu: 20GB, disk: 200GB}")
    ends: dict[int, dict[str, tuple[float, float]]] = {}
    for one in timeline.intervals:
        ends.setdefault(one.first, {})[one.resource] = (one.start_seconds, one.end_seconds)
    from_disk = [found for found in ends.values() if "reads" in found]
    assert len(from_disk) > 20
    for found in from_disk:
        assert found["reads"][1] <= found["copies"][0] + 1e-12
        assert found["copies"][1] <= found["compute"][0] + 1e-12


def test_without_a_machine_there_is_no_timeline_and_every_run_is_explained() -> None:
    config = read_config(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml")
    found = overview(config, INVENTORY)
    assert found.timeline is None
    assert [(run.start, run.end) for run in found.runs] == [
        (0, 12),
        (12, 22),
        (22, len(found.plan.placements)),
    ]
    assert any("The room kept there for streaming" in factor.sentence for factor in found.runs[-1].factors)
