"""The pictures of a page that need no script: bars per device, the pass as lanes, memory over a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.duration import format_duration
from devmap.config.values.size import format_bytes
from devmap.report.page.frame import color_of, text
from devmap.report.plan_bars import bytes_by_kind, device_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.plan.model import Plan
    from devmap.planning.fastest.timeline import Interval, Timeline

__all__ = ["device_bars", "stacked_bar", "timeline_lanes"]

_LABELS = {"streaming": "room to stream"}
_WIDTH = 1000
"""Units across a lane; the picture stretches to the page."""
_THINNEST = 0.6
"""Units below which neighbouring work on one lane is drawn as one."""


def device_bars(plan: Plan) -> Iterator[str]:
    """Yield a stacked bar for each offered device.

    With its figures and the arithmetic of its charges below it.
    """
    for use in plan.devices:
        charges = "; ".join(
            f"{one.what} {format_bytes(one.nbytes)}{f' = {one.arithmetic}' if one.arithmetic else ''}"
            for one in use.charges
        )
        yield stacked_bar(
            device_name(use.device, plan),
            bytes_by_kind(use),
            capacity_bytes=use.capacity_bytes,
            color=color_of(use.device.plain),
            note=charges,
        )


def stacked_bar(
    name: str, amounts: Mapping[str, int], *, capacity_bytes: int | None, color: str, note: str = ""
) -> str:
    """Return one device's bar: which bytes of its capacity are kept for what, by the kinds of `amounts`.

    Without a limit the bar is as long as what is taken.
    """
    taken = sum(nbytes for kind, nbytes in amounts.items() if kind != "free")
    limit = "no limit" if capacity_bytes is None else f"of {format_bytes(capacity_bytes)}"
    whole = max(capacity_bytes or 0, taken)
    parts = [kind for kind, nbytes in amounts.items() if nbytes and whole]
    bar = "".join(
        f"<span{_fill(kind, color, f'width:{amounts[kind] / whole:.3%};')} "
        f'title="{text(_label(kind))} {format_bytes(amounts[kind])}"></span>'
        for kind in parts
    )
    keys = "".join(
        f"<li><i{_fill(kind, color)}></i>{text(_label(kind))} <b>{format_bytes(amounts[kind])}</b></li>"
        for kind in parts
    )
    spoken = ", ".join(f"{_label(kind)} {format_bytes(amounts[kind])}" for kind in parts)
    return (
        f'<div class="device"><div class="device-head"><strong>{text(name)}</strong>'
        f"<span>{format_bytes(taken)} taken, {limit}</span></div>\n"
        f'<div class="bar" role="img" aria-label="{text(name)}: {text(spoken)}">{bar}</div>\n'
        f'<ul class="keys">{keys}</ul>' + (f'\n<p class="soft">{text(note)}</p>' if note else "") + "</div>"
    )


def timeline_lanes(timeline: Timeline, plan: Plan) -> Iterator[str]:
    """Yield a lane for each resource that works in the predicted pass, and the axis below them.

    Work that lies left of the dashed line is done while the pass before this one is still computing.
    """
    lanes: dict[tuple[str, str], list[Interval]] = {}
    for one in timeline.intervals:
        lanes.setdefault((one.resource, device_name(one.device, plan)), []).append(one)
    if not lanes:
        return
    begins = min(0.0, *(one.start_seconds for one in timeline.intervals))
    span = timeline.seconds - begins or 1.0
    start = -begins / span * _WIDTH
    for (resource, name), intervals in lanes.items():
        busy = sum(one.end_seconds - one.start_seconds for one in intervals)
        what = {"compute": f"{name} computes", "copies": f"copies to {name}", "reads": f"reads from {name}"}
        share = f"{format_duration(busy)}, {busy / timeline.seconds:.0%}" if timeline.seconds else ""
        drawn = "".join(_rectangles(resource, intervals, begins, span, plan))
        yield (
            f'<div class="lane"><span>{text(what[resource])} <span class="soft share">{share}</span></span>'
            f'<svg viewBox="0 0 {_WIDTH} 20" preserveAspectRatio="none" role="img" '
            f'aria-label="{text(what[resource])}, busy for {share}">{drawn}'
            f'<line class="start" x1="{start:.2f}" x2="{start:.2f}" y1="0" y2="20"/></svg></div>'
        )
    yield (
        f'<div class="lane"><span></span><div class="axis"><span>{format_duration(begins)}</span>'
        f"<span>{format_duration(timeline.seconds)}</span></div></div>"
    )


def _rectangles(
    resource: str, intervals: Sequence[Interval], begins: float, span: float, plan: Plan
) -> Iterator[str]:
    """Rectangles of work, those that no eye could part drawn as one: a pass may have 10^5 of them."""
    at = 0
    while at < len(intervals):
        end = at + 1
        left = (intervals[at].start_seconds - begins) / span * _WIDTH
        right = (intervals[at].end_seconds - begins) / span * _WIDTH
        while end < len(intervals):
            following = (intervals[end].start_seconds - begins) / span * _WIDTH
            until = (intervals[end].end_seconds - begins) / span * _WIDTH
            if right - left >= _THINNEST and until - following >= _THINNEST:
                break
            if following - right >= _THINNEST:
                break
            right = until
            end += 1
        first, last = plan.placements[intervals[at].first].path, plan.placements[intervals[end - 1].last].path
        busy = sum(one.end_seconds - one.start_seconds for one in intervals[at:end])
        label = first if first == last else f"{first} to {last}"
        yield (
            f'<rect class="{resource}" x="{left:.2f}" y="1" '
            f'width="{max(right - left - 0.3, 0.3):.2f}" height="18">'
            f"<title>{text(label or 'whole model')}: {format_duration(busy)}</title></rect>"
        )
        at = end


def _label(kind: str) -> str:
    return _LABELS.get(kind, kind)


def _fill(kind: str, color: str, shape: str = "") -> str:
    """Return the attributes that paint a part of a bar; `shape` is more style."""
    if kind == "weights":
        return f' style="{shape}background:var(--{color})"'
    style = f' style="{shape}"' if shape else ""
    return f' class="kind-{kind}"{style}'
