"""DM701 to DM703, DM706, DM707, DM709: stages, and the microbatches that go through them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.duration import format_duration
from devmap.config.values.strategy import WorkloadKind
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import split_blocks
from devmap_validators.checks.config_map import (
    anchors_of,
    assignment_of,
    map_path,
    no_split_classes,
    nodes_of,
)
from devmap_validators.checks.wording import counted, exact_bytes, split_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap.plan.model import Pipeline, Plan, Stage

__all__ = ["RULES"]

_UNEVEN = 0.10
_WORTHWHILE = 0.99
"""Of the largest stage: a split that saves less, as by a norm or a buffer on the other side, is no better."""
_LARGEST_BUBBLE = 0.20
_EVEN = frozenset({"auto", "balanced", "fastest"})
"""Strategies that split as evenly as blocks allow: no other contiguous split has a smaller largest stage."""


def _torn_blocks(context: Context) -> Iterator[Report]:
    assignment = assignment_of(context)
    if assignment is None or nodes_of(context) is None:
        return
    for block in split_blocks(assignment, no_split_classes(context)):
        keys = anchors_of(context, [name for _, name in block.parts])
        key = max(keys, key=lambda key: (key.count("."), len(key)))
        yield Report(
            split_block(block),
            map_path(context, key),
            on_key=True,
            help=f"place '{block.path}' whole: a border between stages lies between blocks",
        )


def _uneven(context: Context) -> Iterator[Report]:
    plan = context.plan
    if plan is None or plan.pipeline is None or plan.strategy in _EVEN:
        return
    sizes = [plan.bytes_of(stage) for stage in plan.pipeline.stages]
    mean = sum(sizes) / len(sizes)
    largest = max(sizes)
    if largest > mean * (1 + _UNEVEN) and _has_better_split(plan, plan.pipeline, int(largest * _WORTHWHILE)):
        stage = plan.pipeline.stages[sizes.index(largest)]
        yield Report(
            f"stage {stage.index} ({device_name(stage.device)}) has {exact_bytes(largest)}, "
            f"{largest / mean - 1:.0%} above the mean of {exact_bytes(int(mean))}: the others wait for it"
            f"{_in_seconds(plan.pipeline, stage)}",
            ("device_map",),
            on_key=True,
            help="device_map: balanced makes the largest stage as small as whole blocks allow",
        )


def _in_seconds(pipeline: Pipeline, stage: Stage) -> str:
    """Return what a microbatch takes in a stage, in the others, and at its border; empty without rates."""
    seconds = [one.seconds for one in pipeline.stages if one.seconds is not None]
    if stage.seconds is None or len(seconds) < len(pipeline.stages):
        return ""
    mean = format_duration(sum(seconds) / len(seconds))
    times = f". A microbatch takes {format_duration(stage.seconds)} there, {mean} on average"
    is_last = stage.index == len(pipeline.stages) - 1
    sender = pipeline.stages[stage.index - is_last]
    if sender.transfer_seconds is None:
        return times
    side = "before" if is_last else "behind"
    return f"{times}, and {format_duration(sender.transfer_seconds)} over the border {side} it"


def _has_better_split(plan: Plan, pipeline: Pipeline, limit: int) -> bool:
    """Return whether the same modules, in the same order, have a split with no stage above a limit in bytes.

    Each stage takes in turn what the limit and its device's budget have room for: if that does not reach the
    end, no contiguous split does (as in `devmap.planning.stages.split`).
    """
    numbers = [at for stage in pipeline.stages for at in stage.numbers]
    sizes = [plan.placements[at].nbytes for at in numbers]
    at = 0
    for stage in pipeline.stages:
        use = plan.use_of(stage.device)
        room = limit
        if use is not None and use.capacity_bytes is not None:
            room = min(room, use.capacity_bytes - use.reserved_bytes)
        while at < len(sizes) and sizes[at] <= room:
            room -= sizes[at]
            at += 1
    return at == len(sizes)


def _trained_ties(context: Context) -> Iterator[Report]:
    config, plan = context.document.config, context.plan
    if config is None or plan is None or plan.pipeline is None or config.workload is None:
        return
    if config.workload.kind is not WorkloadKind.TRAINING:
        return
    for copy in plan.tied_copies:
        yield Report(
            f"'{copy.tensor}' is tied to '{copy.original}', whose stage is another: both are trained, and "
            f"their gradients ({exact_bytes(copy.nbytes)}) are added up over the network in each step",
            ("workload",),
            on_key=True,
            help="untie them in the model's config (tie_word_embeddings: false), or plan for that traffic",
        )


def _few_microbatches(context: Context) -> Iterator[Report]:
    config, plan = context.document.config, context.plan
    if config is None or plan is None or plan.pipeline is None or config.workload is None:
        return
    stages, microbatches = len(plan.pipeline.stages), plan.pipeline.microbatches
    batch = config.workload.batch_size
    if microbatches >= stages or plan.pipeline.bubble <= _LARGEST_BUBBLE or batch <= microbatches:
        return
    generates = plan.pipeline.tokens == batch and config.workload.kind is not WorkloadKind.TRAINING
    enough = math.ceil((1 - _LARGEST_BUBBLE) * stages) if generates else 4 * (stages - 1)
    fitting = next((number for number in range(enough, batch + 1) if batch % number == 0), batch)
    path: tuple[str, ...] = ("parallel", "microbatches")
    written = (context.document.data or {}).get("parallel")
    if not isinstance(written, dict) or "microbatches" not in written:
        path = ("parallel",) if written is not None else ("workload",)
    plural = "es" if microbatches > 1 else ""
    yield Report(
        f"{microbatches:,} microbatch{plural} for {counted(stages, 'stage')}: a stage waits for "
        f"{plan.pipeline.bubble:.0%} of a step",
        path,
        on_key=len(path) == 1,
        help=f"split the batch of {batch:,} into {fitting:,}: parallel: {{microbatches: {fitting}}}",
    )


def _not_contiguous(context: Context) -> Iterator[Report]:
    for problem in context.plan_error.problems if context.plan_error is not None else ():
        if problem.code == "DM707":
            yield Report(
                problem.message,
                getattr(problem, "path", ("device_map",)),
                help="let the pins follow the order in which the modules run",
            )


def _uneven_batch(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.parallel is None or config.workload is None or nodes_of(context) is None:
        return
    batch, microbatches = config.workload.batch_size, config.parallel.microbatches
    if batch % microbatches:
        training = config.workload.kind is WorkloadKind.TRAINING
        below = next((number for number in range(min(microbatches, batch), 0, -1) if batch % number == 0), 1)
        yield Report(
            f"a batch of {batch:,} cannot be split into {microbatches:,} equal microbatches",
            ("parallel", "microbatches"),
            severity=None if training else Severity.WARNING,
            help=f"write microbatches: {below}, or a batch_size that it divides",
        )


_HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
_TWO = "machine: {nodes: {a: {devices: {0: {memory: 40GB}}}, b: {devices: {0: {memory: 40GB}}}}}\n"
_BASE = f"{_HEAD}{_TWO}max_memory: {{0: 30GB}}\n"

RULES = (
    Rule(
        code="DM701",
        name="border-inside-block",
        severity=Severity.ERROR,
        summary="A border between stages lies inside a block that may not be split",
        why=(
            "A block adds what it computes to its input. Split over two nodes, both summands cross the "
            "network in each pass, and nothing moves them there: the forward fails with tensors on two "
            "devices."
        ),
        good=f"{_BASE}device_map: {{'': a/0, 'model.layers[2-3]': b/0, lm_head: b/0, model.norm: b/0}}\n",
        bad=(
            f"{_BASE}device_map: {{'': a/0, model.layers.2.mlp: b/0, model.layers.3: b/0, "
            "lm_head: b/0, model.norm: b/0}\n"
        ),
        check=_torn_blocks,
    ),
    Rule(
        code="DM702",
        name="uneven-stages",
        severity=Severity.WARNING,
        summary="The largest stage is more than a tenth above the mean",
        why=(
            "A pipeline is as fast as its slowest stage. What the others have less than it they wait "
            "for, in each microbatch; where the rates are known the finding says the time, beside that "
            "of the border. Nothing is said where whole blocks, in their order and within the "
            "budgets, allow no smaller largest stage."
        ),
        good=f"{_BASE}device_map: balanced\n",
        bad=f"{_BASE}device_map: {{'': a/0, lm_head: b/0}}\n",
        check=_uneven,
    ),
    Rule(
        code="DM703",
        name="trained-tie-over-stages",
        severity=Severity.WARNING,
        summary="A tied weight of two stages is trained",
        why=(
            "Embedding and head of many models are one matrix, and stand at the two ends of a pipeline. "
            "Each stage has a copy; trained apart they would become two matrices, so that their "
            "gradients have to be added up in every step."
        ),
        good=f"{_BASE}workload: {{batch_size: 1, sequence_length: 16}}\n",
        bad=f"{_BASE}workload: {{kind: training, sequence_length: 16, optimizer: sgd}}\n",
        check=_trained_ties,
    ),
    Rule(
        code="DM706",
        name="few-microbatches",
        severity=Severity.WARNING,
        summary="Fewer microbatches than stages, and stages that wait for a fifth of a step or more",
        why=(
            "While a pipeline fills and empties, most of its stages have nothing to do. With p stages "
            "and M microbatches that is (p - 1) / (M + p - 1) of a step; generation, which fills it "
            "once, leaves 1 - M / p of it idle."
        ),
        good=f"{_BASE}workload: {{batch_size: 4, sequence_length: 16}}\nparallel: {{microbatches: 2}}\n",
        bad=f"{_BASE}workload: {{batch_size: 4, sequence_length: 16}}\nparallel: {{microbatches: 1}}\n",
        check=_few_microbatches,
    ),
    Rule(
        code="DM707",
        name="stages-not-contiguous",
        severity=Severity.ERROR,
        summary="Pins send modules back to an earlier stage",
        why=(
            "Stages follow each other in the order in which the modules run. A module that is pinned to "
            "a stage before that of its predecessor would send each microbatch back, and then forth "
            "again."
        ),
        good=f"{_BASE}device_map: {{'': auto, model.layers.0: a/0, model.layers.3: b/0}}\n",
        bad=f"{_BASE}device_map: {{'': auto, model.layers.0: b/0, model.layers.3: a/0}}\n",
        check=_not_contiguous,
    ),
    Rule(
        code="DM709",
        name="uneven-microbatches",
        severity=Severity.ERROR,
        summary="The batch cannot be split into that many equal microbatches",
        why=(
            "The ranks agree on the shapes that pass their borders once, and every microbatch has to "
            "have them. In training an unequal one is an error of torch's schedules; in inference, "
            "where this is a warning, the last microbatch carries less than its room."
        ),
        good=f"{_BASE}workload: {{batch_size: 4, sequence_length: 16}}\nparallel: {{microbatches: 4}}\n",
        bad=(
            f"{_BASE}workload: {{kind: training, optimizer: sgd, batch_size: 4, sequence_length: 16}}\n"
            "parallel: {microbatches: 3}\n"
        ),
        check=_uneven_batch,
    ),
)
