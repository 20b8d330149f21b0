"""What changes between two plans as one HTML page: bytes per device on both sides, and every move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import format_bytes
from devmap.config.values.words import escaped
from devmap.report.legible import legible
from devmap.report.page.charts import stacked_bar
from devmap.report.page.frame import color_of, document, section, swatch, table, text
from devmap.report.plan_diff import place_words, ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.diff import DeviceChange, Move, PlanDiff

__all__ = ["render_diff_page"]


def render_diff_page(diff: PlanDiff, before: str, after: str) -> str:
    """Return the page of a diff, ending in a line end; `before` and `after` name the two sides.

    One file without references, as a plan's page.
    """
    diff, before, after = legible(diff), escaped(before), escaped(after)
    lead = [f"<p>{_summary(diff)}</p>"]
    if not diff.same_model:
        lead.append("<p>The two are plans of different models.</p>")
    body = [
        section("Devices", _devices(diff.devices, before, after), name="devices"),
        section("What moves, between which devices", [_flows(diff.moves)], name="flows"),
        section("Every move, in the model's order", [_moves(diff.moves)], name="moves"),
        section("Only in the model before", _names(diff.only_before), name="only-before"),
        section("Only in the model after", _names(diff.only_after), name="only-after"),
    ]
    return document(f"{before} → {after}", lead, [part for part in body if part])


def _summary(diff: PlanDiff) -> str:
    if diff.is_empty:
        return "Nothing moves."
    known = [move.nbytes for move in diff.moves if move.nbytes is not None]
    size = f", {format_bytes(sum(known))} in all" if len(known) == len(diff.moves) else ""
    return f"{len(diff.moves):,} run{'s' if len(diff.moves) > 1 else ''} of modules move{size}."


def _devices(changes: Sequence[DeviceChange], before: str, after: str) -> Iterator[str]:
    for change in changes:
        color = color_of(change.device)
        name = device_name(change.device)
        sides = (
            (before, change.before_bytes, change.reserved_before, change.capacity_before),
            (after, change.after_bytes, change.reserved_after, change.capacity_after),
        )
        for side, weights, reserved, capacity in sides:
            if weights is None:
                yield f"<p><strong>{text(name)}</strong>: not offered by {text(side)}</p>"
                continue
            taken = weights + (reserved or 0)
            amounts = {"weights": weights, "reserved": reserved or 0}
            if capacity is not None:
                amounts["free"] = max(0, capacity - taken)
            yield stacked_bar(f"{name}, {side}", amounts, capacity_bytes=capacity, color=color)


def _flows(moves: Sequence[Move]) -> str:
    """Return the bytes from each place to each other, the most first."""
    flows: dict[tuple[str, str], list[Move]] = {}
    for move in moves:
        way = (
            place_words(move.before, move.executed_before),
            place_words(move.after, move.executes_after),
        )
        flows.setdefault(way, []).append(move)

    def total(found: Sequence[Move]) -> int | None:
        known = [move.nbytes for move in found if move.nbytes is not None]
        return sum(known) if len(known) == len(found) else None

    ordered = sorted(flows.items(), key=lambda flow: -(total(flow[1]) or 0))
    rows = [
        [text(start), text(end), f"{len(found):,}", _size(total(found))] for (start, end), found in ordered
    ]
    return table(("from", "to", "runs", "size"), rows, numbers=frozenset({2, 3}))


def _moves(moves: Sequence[Move]) -> str:
    rows = [
        [
            f'<span class="path">{text(move.path or "(whole model)")}</span>'
            + (
                f' to <span class="path">{text(move.last)}</span>' if move.last not in {"", move.path} else ""
            ),
            _square(move.before, move.executed_before) + text(place_words(move.before, move.executed_before)),
            _square(move.after, move.executes_after) + text(place_words(move.after, move.executes_after)),
            _size(move.nbytes),
        ]
        for move in moves
    ]
    return table(("modules", "before", "after", "size"), rows, numbers=frozenset({3}))


def _square(home: int | str | None, executes: int | str | None) -> str:
    return "" if home is None else swatch(color_of(home), color_of(home if executes is None else executes))


def _size(nbytes: int | None) -> str:
    return "" if nbytes is None else format_bytes(nbytes)


def _names(names: Sequence[str]) -> Iterator[str]:
    for name in ranges(names):
        yield f'<p class="path">{text(name or "(whole model)")}</p>'
