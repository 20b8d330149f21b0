"""What changes between two plans, for a reader or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import format_bytes
from devmap.report.legible import legible
from devmap.report.plan import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.diff import DeviceChange, Move, PlanDiff

__all__ = ["diff_document", "place_words", "ranges", "render_diff", "render_diff_json"]

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_MOST_NAMES = 40
_NARROWEST_NAME = 32
"""Columns that names of modules need before each move takes two lines."""


def render_diff(diff: PlanDiff, *, width: int = 100, color: bool = False) -> str:
    """Moves in the model's order, neighbours with the same change in one line.

    Bytes per device before and after. No line is longer than `width`, and no figure is parted from its unit.
    """
    diff = legible(diff)
    lines = [] if diff.same_model else ["the two are plans of different models"]
    lines += _only(diff.only_before, "-", "before", width)
    lines += _only(diff.only_after, "+", "after", width)
    lines += list(_moves(diff.moves, width)) or ["nothing moves"]
    lines += ["", *_devices(diff, width, color=color)]
    return "\n".join(lines) + "\n"


def render_diff_json(diff: PlanDiff) -> str:
    """Return the diff as JSON, ending in a line end; `docs/plan.md` describes its keys."""
    return json.dumps(diff_document(diff), indent=2) + "\n"


def diff_document(diff: PlanDiff) -> dict[str, object]:
    """Return the diff as plain values, for JSON."""
    moves = [
        {
            "first": move.path,
            "last": move.last,
            "home": [move.before, move.after],
            "executes_on": [move.executed_before, move.executes_after],
            "bytes": move.nbytes,
        }
        for move in diff.moves
    ]
    return {
        "version": 1,
        "kind": "devmap diff",
        "same_model": diff.same_model,
        "same_config": diff.same_config,
        "moves": moves,
        "devices": [asdict(change) for change in diff.devices],
        "only_before": list(diff.only_before),
        "only_after": list(diff.only_after),
    }


def _only(names: Sequence[str], sign: str, side: str, width: int) -> Iterator[str]:
    names = list(ranges(names))
    for name in names[:_MOST_NAMES]:
        yield shortened(f"{sign} {name or '(whole model)'}: only in the model {side}", width)
    if len(names) > _MOST_NAMES:
        yield f"{sign} and {len(names) - _MOST_NAMES:,} more"


def ranges(names: Sequence[str]) -> Iterator[str]:
    """Yield numbered neighbours as one range: `layers.3`, `layers.4` are `layers[3-4]`."""
    start = 0
    while start < len(names):
        parent, _, number = names[start].rpartition(".")
        end = start + 1
        while (
            number.isdecimal() and end < len(names) and names[end] == f"{parent}.{int(number) + end - start}"
        ):
            end += 1
        yield names[start] if end == start + 1 else f"{parent}[{number}-{int(number) + end - start - 1}]"
        start = end


def _moves(moves: Sequence[Move], width: int) -> Iterator[str]:
    """Yield a line a move; two lines each where the columns leave too little of the modules' names."""
    if not moves:
        return
    labels = [
        f"{move.path} to {move.last}" if move.last not in {"", move.path} else move.path or "(whole model)"
        for move in moves
    ]
    changes = [
        f"{place_words(move.before, move.executed_before)} -> {place_words(move.after, move.executes_after)}"
        for move in moves
    ]
    # What owns no bytes and yet moves is tied to what owns them.
    sizes = [
        "" if move.nbytes is None else format_bytes(move.nbytes) if move.nbytes else "tied" for move in moves
    ]
    wide, digits = max(map(len, changes)), max(map(len, sizes))
    room = width - wide - (digits + 2 if digits else 0) - 2
    if room >= min(_NARROWEST_NAME, max(map(len, labels))):
        room = min(room, max(map(len, labels)))
        yield f"{'modules':<{room}}  {'from -> to':<{wide}}  {'size' if digits else '':>{digits}}".rstrip()
        for label, change, size in zip(labels, changes, sizes, strict=True):
            yield f"{shortened(label, room):<{room}}  {change:<{wide}}  {size:>{digits}}".rstrip()
        return
    for label, change, size in zip(labels, changes, sizes, strict=True):
        yield shortened(label, width)
        yield shortened(f"    {change}{f', {size}' if size else ''}", width)


def _devices(diff: PlanDiff, width: int, *, color: bool) -> Iterator[str]:
    """Yield a line a device, with what is kept beside weights.

    And by how much more or less is taken in all.
    """
    names = [device_name(change.device) for change in diff.devices]
    before = [_amount(change.before_bytes, change.reserved_before) for change in diff.devices]
    after = [_amount(change.after_bytes, change.reserved_after) for change in diff.devices]
    gains = [_gain(change) for change in diff.devices]
    if not names:
        return
    kept = any("+" in amount for amount in (*before, *after))
    title = "weights + reserved" if kept else "weights"
    name_room = max(len("device"), *map(len, names))
    rooms = [max(len(f"{title} before"), *map(len, before)), max(len("after"), *map(len, after))]
    line = (
        name_room
        + 2
        + rooms[0]
        + 4
        + rooms[1]
        + 2
        + max(len("change"), *(len(_signed(gain)) for gain in gains))
    )
    if line <= width:
        yield f"{'device':<{name_room}}  {f'{title} before':>{rooms[0]}}    {'after':>{rooms[1]}}  change"
        for name, one, other, gain in zip(names, before, after, gains, strict=True):
            sign = _colored(gain, color=color)
            yield f"{name:<{name_room}}  {one:>{rooms[0]}} -> {other:>{rooms[1]}}  {sign}"
        return
    yield f"{title}, before -> after, change:"
    for name, one, other, gain in zip(names, before, after, gains, strict=True):
        yield f"{name:<{name_room}}  {one} -> {other}, {_colored(gain, color=color)}"


def place_words(home: int | str | None, executes: int | str | None) -> str:
    """Return where something lives and, where that differs, runs."""
    if home is None:
        return "not there"
    if executes is None or executes == home:
        return device_name(home)
    return f"{device_name(home)} (runs on {device_name(executes)})"


def _gain(change: DeviceChange) -> int:
    """Return the bytes that are taken more after than before: weights, slots, workload and headroom."""
    before = (change.before_bytes or 0) + (change.reserved_before or 0)
    return (change.after_bytes or 0) + (change.reserved_after or 0) - before


def _signed(gain: int) -> str:
    return f"{'+' if gain > 0 else '-'}{format_bytes(abs(gain))}" if gain else "same"


def _colored(gain: int, *, color: bool) -> str:
    return f"{_RED if gain > 0 else _GREEN}{_signed(gain)}{_PLAIN}" if color and gain else _signed(gain)


def _amount(weights: int | None, reserved: int | None) -> str:
    """Weights and what is kept beside them: `12.1 GB + 1.4 GB`."""
    if weights is None:
        return "not offered"
    return f"{format_bytes(weights)} + {format_bytes(reserved)}" if reserved else format_bytes(weights)
