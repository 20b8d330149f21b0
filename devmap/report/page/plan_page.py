"""A plan as one HTML page: bars, treemap, runs with their reasons, the predicted pass, memory, findings."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from devmap.config.values.duration import format_duration
from devmap.config.values.size import format_bytes
from devmap.config.values.words import escaped
from devmap.report.formats.results import safe
from devmap.report.legible import legible
from devmap.report.page.charts import device_bars, timeline_lanes
from devmap.report.page.frame import color_of, document, section, swatch, table, text, unbroken
from devmap.report.page.memory import memory_lanes
from devmap.report.page.tree import treemap_data
from devmap.report.plan_bars import device_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.api.overview import ConfigOverview
    from devmap.findings.model import Finding
    from devmap.plan.model import Plan
    from devmap.planning.why.overview import ExplainedRun
    from devmap.simulate.fake import Simulation

__all__ = ["render_plan_page"]

_MOST_ROWS = 200
_MOST_CUTS = 40

_TREEMAP = """<div class="tools"><input id="search" type="search" placeholder="Search modules and classes"
 aria-label="Search modules and classes" autocomplete="off"><output id="count" for="search"></output></div>
<div id="found" aria-label="What was found"></div>
<nav id="trail" aria-label="Where the map is"></nav>
<div id="map" role="group" aria-label="Modules by bytes, coloured by device"></div>
<div id="told" aria-live="polite"></div>
<p class="soft wide">Click or press Enter to go into a module, Escape to go back; arrow keys move.
Stripes: what lies
on one device and is streamed to another.</p>
<noscript><p>The map of modules needs scripts; the table below says the same in rows.</p></noscript>"""


def render_plan_page(shown: ConfigOverview, simulation: Simulation | None = None) -> str:
    """Return the page of a plan, ending in a line end.

    One file without references: style and script stand in it, and it makes no request. `simulation` adds the
    memory of each device over a pass.
    """
    shown = replace(
        shown,
        name=escaped(shown.name),
        overview=legible(shown.overview),
        inventory=legible(shown.inventory),
    )
    plan, inventory = shown.overview.plan, shown.inventory
    nbytes = sum(placement.nbytes for placement in plan.placements)
    streamed = sum(placement.home_bytes for placement in plan.streamed)
    architecture = inventory.architecture.class_name if inventory.architecture else "model"
    lead = [
        f"<p><strong>{text(architecture)}</strong>: {_made_of(plan, nbytes)}.</p>",
        f"<p>{_streams(streamed)} {_time(plan)}</p>",
    ]
    body = [
        section("Findings", () if shown.findings is None else _findings(shown.findings), name="findings"),
        section("Devices", device_bars(plan), name="devices"),
        section("Modules", [_legend(plan), _TREEMAP], name="modules"),
        section("In the model's order", _runs(shown), name="runs"),
        section("Cuts", _cuts(plan), name="cuts"),
        section("One pass, as predicted", _timeline(shown), name="pass"),
        section(
            "Memory over one pass, simulated",
            memory_lanes(simulation, plan) if simulation is not None else (),
            name="memory",
        ),
        section("Why", _reasons(plan), name="why"),
    ]
    data = treemap_data(shown.overview, inventory)
    return document(shown.name, lead, [part for part in body if part], data=data)


def _made_of(plan: Plan, nbytes: int) -> str:
    dtype = plan.dtype or "the dtypes of the checkpoint"
    return text(f"{format_bytes(nbytes)} in {dtype}, placed by {plan.strategy}")


def _streams(streamed: int) -> str:
    return f"{format_bytes(streamed)} are streamed in each pass." if streamed else "Nothing is streamed."


def _time(plan: Plan) -> str:
    if plan.predicted_seconds is None:
        return "The time of a pass is not predicted: the config names no machine with rates."
    bound = (
        f"; no placement on this machine beats {format_duration(plan.bound_seconds)}"
        if plan.bound_seconds
        else ""
    )
    return f"One pass is predicted to take {format_duration(plan.predicted_seconds)}{bound}."


def _findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    rows = [
        [
            f'<span class="finding-{finding.severity.value}">{finding.severity.value}</span>',
            f"<code>{text(finding.code)}</code> {text(finding.name)}",
            text(
                f"{finding.position.start.line}:{finding.position.start.column}" if finding.position else ""
            ),
            text(finding.message)
            + (f'<br><span class="soft">{text(finding.help)}</span>' if finding.help else ""),
        ]
        for finding in map(safe, findings)
        if finding.suppressed is None
    ]
    yield table(("severity", "rule", "place", "message"), rows) or "<p>No findings.</p>"


def _legend(plan: Plan) -> str:
    pairs = dict.fromkeys((one.home, one.executes_on) for one in plan.placements)
    entries = "".join(
        f"<li>{swatch(color_of(home.plain), color_of(device.plain))}{text(device_name(home, plan))}"
        f"{'' if home == device else f', streamed to {text(device_name(device, plan))}'}</li>"
        for home, device in pairs
    )
    return f'<ul class="keys">{entries}</ul>'


def _runs(shown: ConfigOverview) -> Iterator[str]:
    plan = shown.overview.plan
    runs = shown.overview.runs
    rows = [_run_row(run, plan) for run in runs[:_MOST_ROWS]]
    yield table(("modules", "size", "lives on", "runs on", "why"), rows, numbers=frozenset({1}))
    if len(runs) > _MOST_ROWS:
        yield f"<p>and {len(runs) - _MOST_ROWS:,} more runs; <code>--format json</code> has every module.</p>"


def _run_row(run: ExplainedRun, plan: Plan) -> list[str]:
    members = plan.placements[run.start : run.end]
    first, last = members[0].path, members[-1].path
    names = f'<span class="path">{text(first or "(whole model)")}</span>'
    if first != last:
        names += f' to <span class="path">{text(last)}</span>'
    home, device = (device_name(one, plan) for one in (run.home, run.executes_on))
    return [
        swatch(color_of(run.home.plain), color_of(run.executes_on.plain)) + names,
        format_bytes(sum(placement.nbytes for placement in members)),
        unbroken(home),
        unbroken(device),
        "<br>".join(text(factor.sentence) for factor in run.factors),
    ]


def _cuts(plan: Plan) -> Iterator[str]:
    """Yield where the activations change devices."""
    cuts = [
        (one.executes_on, other.executes_on, other.path)
        for one, other in pairwise(plan.placements)
        if one.executes_on != other.executes_on
    ]
    for before, after, path in cuts[:_MOST_CUTS]:
        yield (
            f"<p>{text(device_name(before, plan))} to {text(device_name(after, plan))} before "
            f'<span class="path">{text(path)}</span></p>'
        )
    if len(cuts) > _MOST_CUTS:
        yield f"<p>and {len(cuts) - _MOST_CUTS:,} more</p>"


def _timeline(shown: ConfigOverview) -> Iterator[str]:
    if shown.overview.timeline is None:
        return
    yield (
        '<p class="soft">What each resource does in a pass that follows '
        "others. Left of the dashed line: what is "
        "fetched for this pass while the one before it still computes.</p>"
    )
    timeline = shown.overview.timeline
    if timeline.host_memory_seconds > timeline.seconds:
        yield (
            f"<p>Host memory is read for {format_duration(timeline.host_memory_seconds)} "
            "in a pass, by the CPU and for "
            f"copies together: that binds, not the {format_duration(timeline.seconds)} below.</p>"
        )
    yield from timeline_lanes(timeline, shown.overview.plan)


def _reasons(plan: Plan) -> Iterator[str]:
    for reason in plan.reasons:
        yield f"<p>{text(reason)}</p>"
