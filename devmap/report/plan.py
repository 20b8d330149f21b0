"""A plan for a reader: a bar per device, runs of modules folded, cuts, every charge with its arithmetic.

The reasons, the time.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

from devmap.config.values.device import Tier, device_names
from devmap.config.values.duration import format_duration
from devmap.config.values.size import format_bytes
from devmap.plan.document import plan_document
from devmap.report.legible import legible
from devmap.report.plan_bars import device_name, render_bars
from devmap.report.plan_runs import runs_of
from devmap.report.wrapping import wrap_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Charge, DeviceUse, Pipeline, Plan
    from devmap.planning.savings import Saving
    from devmap.report.plan_runs import PlacementRun

__all__ = ["NARROWEST", "render_plan", "render_plan_json", "shortened", "titled"]

NARROWEST = 60
"""Columns that a plan needs."""
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_MOST_ROWS = 80
_MOST_CUTS = 8
_LONGEST_TIE = 24


def render_plan(
    plan: Plan,
    inventory: Inventory,
    savings: Sequence[Saving] = (),
    *,
    width: int = 100,
    color: bool = False,
    ascii_only: bool = False,
) -> str:
    """Return the text of a plan, no line longer than `width` (at least 60), ending in a line end.

    `savings` are what quantising while loading would change about it.

    ANSI colours with `color`; nothing but ASCII with `ascii_only`, for a terminal that has no block
    characters.
    """
    plan, inventory = legible(plan), legible(inventory)
    width = max(width, NARROWEST)
    runs = list(runs_of(plan, inventory))
    lines = [
        *_head(plan, inventory, width),
        "",
        *render_bars(plan, width, color=color, ascii_only=ascii_only),
        "",
    ]
    lines += [titled("in the model's order", color=color), *_rows(runs[:_MOST_ROWS], plan, inventory, width)]
    if len(runs) > _MOST_ROWS:
        lines.append(f"  and {len(runs) - _MOST_ROWS:,} more runs; --format json has every module")
    lines += [*_cuts(plan, width), *_charges(plan, width, color=color)]
    if plan.reasons:
        lines += ["", titled("why", color=color)]
        for reason in plan.reasons:
            lines += wrap_words(f"  {reason}", width, hanging=2, whole=False)
    if savings:
        lines += ["", titled("with model.quantization", color=color)]
        for saving in savings:
            lines += wrap_words(f"  {saving.sentence}", width, hanging=2, whole=False)
    lines += [*_pipeline(plan, width), *_time(plan, width)]
    text = "\n".join(lines) + "\n"
    return text.encode("ascii", "backslashreplace").decode() if ascii_only else text


def render_plan_json(plan: Plan, savings: Sequence[Saving] = ()) -> str:
    """Return the plan as JSON, ending in a line end; `docs/plan.md` describes its keys."""
    beside = [
        {
            "quantization": list(saving.methods),
            "bytes": saving.nbytes,
            "devices": [device.plain for device in saving.devices],
            "streamed_bytes": saving.streamed_bytes,
        }
        for saving in savings
    ]
    return json.dumps(plan_document(plan) | {"savings": beside}, indent=2) + "\n"


def titled(title: str, *, color: bool) -> str:
    """Return a heading."""
    return f"{_BOLD}{title}{_PLAIN}" if color else title


def shortened(text: str, room: int) -> str:
    """Return a text in at most `room` characters, cut in its middle: the ends of a path say most."""
    if len(text) <= room:
        return text
    return f"{text[: room // 2 - 1]}...{text[len(text) - (room - room // 2 - 2) :]}"


def _head(plan: Plan, inventory: Inventory, width: int) -> list[str]:
    name = inventory.architecture.class_name if inventory.architecture else "model"
    nbytes = sum(placement.nbytes for placement in plan.placements)
    dtype = plan.dtype or "the checkpoint's dtypes"
    quantization = inventory.architecture.figures.get("quantization") if inventory.architecture else None
    if quantization:
        dtype += f" ({quantization})"
    return wrap_words(
        f"{name}: {format_bytes(nbytes)} in {dtype}, placed by {plan.strategy}", width, whole=False
    )


def _rows(runs: Sequence[PlacementRun], plan: Plan, inventory: Inventory, width: int) -> Iterator[str]:
    """Yield a line a run: which modules, how many bytes, where they live and run.

    What it is tied to, where it owns none.
    """
    places = [_place(run, plan) + _tied(run, inventory) for run in runs]
    labels = [
        f"{run.first} to {run.last}" if run.last != run.first else run.first or "(whole model)"
        for run in runs
    ]
    room = min(max(map(len, labels), default=0), width - max(map(len, places), default=0) - 15)
    for run, label, place in zip(runs, labels, places, strict=True):
        fitting = shortened(
            label, max(room, width - len(place) - 15)
        )  # a long name may stand out of its column before it is cut
        yield f"  {fitting:<{room}}  {format_bytes(run.nbytes):>9}  {place}"


def _place(run: PlacementRun, plan: Plan) -> str:
    where = device_name(run.home, plan)
    if run.executes_on != run.home:
        return f"{where}, runs on {device_name(run.executes_on, plan)}"
    return (
        f"{where}, computed there"
        if run.home.tier == Tier.CPU and any(use.device.is_accelerator for use in plan.devices)
        else where
    )


def _tied(run: PlacementRun, inventory: Inventory) -> str:
    """Return what the weights of a run without bytes of its own are tied to.

    A language model's head to its embedding.
    """
    if run.nbytes:
        return ""
    owners = dict.fromkeys(
        inventory.owner[name].rpartition(".")[0]
        for name in inventory.tensors
        if name in inventory.owner and (name == run.first or name.startswith(f"{run.first}."))
    )
    return f", tied to {shortened(next(iter(owners)), _LONGEST_TIE)}" if owners else ""


def _cuts(plan: Plan, width: int) -> Iterator[str]:
    """Yield where the activations change devices; of several nodes where they change nodes."""
    pairs = (
        [
            (one.executes_on, other.executes_on, other.path)
            for one, other in pairwise(plan.placements)
            if one.executes_on != other.executes_on
        ]
        if plan.pipeline is None
        else list(_borders(plan, plan.pipeline))
    )
    if not pairs:
        return
    count = f"{len(pairs):,} cut{'s' if len(pairs) > 1 else ''}"
    if plan.pipeline is not None:
        pairs = [pair for pair in pairs if pair[0].node != pair[1].node]
        count = f"{count}, {len(pairs):,} of them between nodes"
    cuts = [
        f"{device_name(one, plan)} to {device_name(other, plan)} before {shortened(path, 40)}"
        for one, other, path in pairs
    ]
    more = [f"and {len(cuts) - _MOST_CUTS:,} more"] if len(cuts) > _MOST_CUTS else []
    listed = f": {'; '.join([*cuts[:_MOST_CUTS], *more])}" if cuts else ""
    yield ""
    yield from wrap_words(f"{count}{listed}", width, hanging=2, whole=False)


def _borders(plan: Plan, pipeline: Pipeline) -> Iterator[tuple[Device, Device, str]]:
    """Yield the devices of neighbouring stages, and the module at which the later one begins."""
    for one, other in pairwise(pipeline.stages):
        start, _ = max(other.spans, key=lambda span: span[1] - span[0])
        yield one.device, other.device, plan.placements[start].path


def _charges(plan: Plan, width: int, *, color: bool) -> Iterator[str]:
    charged = [use for use in plan.devices if use.charges]
    if not charged:
        return
    yield ""
    yield titled("reserved", color=color)
    for name, charges in _charged(plan, charged):
        for charge in charges:
            arithmetic = f" = {charge.arithmetic}" if charge.arithmetic else ""
            text = f"{name}: {charge.what} {format_bytes(charge.nbytes)}{arithmetic}"
            yield from wrap_words(f"  {text}", width, hanging=2, whole=False)


def _charged(plan: Plan, uses: Sequence[DeviceUse]) -> Iterator[tuple[str, tuple[Charge, ...]]]:
    """Yield devices with their charges; of several nodes those with the same charges together."""
    if plan.pipeline is None:
        yield from ((device_name(use.device, plan), use.charges) for use in uses)
        return
    alike: dict[tuple[Charge, ...], list[Device]] = {}
    for use in uses:
        alike.setdefault(use.charges, []).append(use.device)
    yield from ((device_names(devices), charges) for charges, devices in alike.items())


def _pipeline(plan: Plan, width: int) -> Iterator[str]:
    """Yield what a step over all stages takes."""
    pipeline = plan.pipeline
    if pipeline is None:
        return
    plural = "es" if pipeline.microbatches > 1 else ""
    shape = (
        f"{len(pipeline.stages)} stages on {len(pipeline.nodes)} nodes, {pipeline.microbatches} "
        f"microbatch{plural} by {pipeline.schedule}, bubble {pipeline.bubble:.0%}"
    )
    time = "rates are not known"
    if pipeline.step_seconds is not None:
        time = (
            f"{format_duration(pipeline.step_seconds)} predicted, {pipeline.tokens_per_second:,.4g} tokens "
            f"a second"
        )
    yield ""
    yield from wrap_words(f"one step: {time}; {shape}", width, hanging=2, whole=False)


def _time(plan: Plan, width: int) -> Iterator[str]:
    if plan.predicted_seconds is None:
        return
    bound = ""
    if plan.bound_seconds:
        above = plan.predicted_seconds / plan.bound_seconds - 1
        bound = f"; no placement beats {format_duration(plan.bound_seconds)}" + (
            f" ({above:.0%} above it)" if above >= 0.005 else " (reached)"
        )
    yield ""
    yield from wrap_words(
        f"one pass: {format_duration(plan.predicted_seconds)} predicted{bound}", width, hanging=2, whole=False
    )
