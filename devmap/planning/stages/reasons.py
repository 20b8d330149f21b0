"""Sentences on a plan over several nodes: how even its stages are, what streams, what a step takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.duration import format_duration
from devmap.config.values.size import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.plan.model import Pipeline, Plan
    from devmap.planning.problem.workload import WorkloadCharges

__all__ = ["reasons_of"]


def reasons_of(plan: Plan, workload: WorkloadCharges) -> tuple[str, ...]:
    """Return the reasons of a plan with a pipeline, the most telling first."""
    assert plan.pipeline is not None
    return (
        *_aim(plan, plan.pipeline),
        *_streams(plan, plan.pipeline),
        *_copies(plan),
        *_step(plan.pipeline),
        *workload.notes,
    )


_AIMS = {
    "fastest": "fastest: the slowest stage is as fast as any contiguous split makes it",
    "sequential": "sequential: each stage takes what its accelerator holds",
    "balanced": "balanced: the largest stage is as small as any contiguous split makes it",
    "manual": "as the map says",
}


def _aim(plan: Plan, pipeline: Pipeline) -> Iterator[str]:
    sizes = [plan.bytes_of(stage) for stage in pipeline.stages]
    largest = pipeline.stages[sizes.index(max(sizes))]
    count = len(pipeline.stages)
    aim = _AIMS.get(plan.strategy, _AIMS["balanced"])
    yield (
        f"{count} stages over {len(pipeline.nodes)} nodes, {aim}: {format_bytes(max(sizes))} on "
        f"{device_name(largest.device)}, {format_bytes(sum(sizes) // count)} on average."
    )


def _streams(plan: Plan, pipeline: Pipeline) -> Iterator[str]:
    for stage in pipeline.stages:
        moved = [plan.placements[at] for at in stage.numbers if plan.placements[at].is_streamed]
        if moved:
            nbytes = sum(placement.home_bytes for placement in moved)
            homes = " and ".join(dict.fromkeys(str(placement.home) for placement in moved))
            yield (
                f"Stage {stage.index} ({device_name(stage.device)}) streams {format_bytes(nbytes)} from "
                f"{homes} for every microbatch."
            )


def _copies(plan: Plan) -> Iterator[str]:
    for copy in plan.tied_copies:
        yield (
            f"'{copy.tensor}' is tied to '{copy.original}' and lies on {device_name(copy.device)} too "
            f"({format_bytes(copy.nbytes)}), since their modules are in two stages."
        )


def _step(pipeline: Pipeline) -> Iterator[str]:
    border = max(stage.border_bytes for stage in pipeline.stages)
    if border:
        yield f"Each border passes {format_bytes(border)} for a microbatch of a step."
    if len(pipeline.stages) > 1:
        yield (
            f"A stage waits for others for {pipeline.bubble:.0%} of a step "
            f"({len(pipeline.stages)} stages, {pipeline.microbatches} "
            f"microbatch{'es' if pipeline.microbatches > 1 else ''}, {pipeline.schedule})."
        )
    if pipeline.step_seconds is not None and pipeline.tokens_per_second is not None:
        yield (
            f"A step of {pipeline.tokens:,} token{'s' if pipeline.tokens > 1 else ''} takes about "
            f"{format_duration(pipeline.step_seconds)}: {pipeline.tokens_per_second:,.4g} tokens a second."
        )
