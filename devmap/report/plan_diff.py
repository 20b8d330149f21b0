"""What changes between two plans, for a reader or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.report.plan import shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.diff import Move, PlanDiff

__all__ = ["render_diff", "render_diff_json"]

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
_MOST_NAMES = 40


def render_diff(diff: PlanDiff, *, width: int = 100, color: bool = False) -> str:
    """Moves in the model's order, neighbours with the same change in one line.

    Bytes per device before and after.
    """
    lines = [] if diff.same_model else ["the two are plans of different models"]
    lines += _only(diff.only_before, "-", "before", width)
    lines += _only(diff.only_after, "+", "after", width)
    lines += list(_moves(diff.moves, width)) or ["nothing moves"]
    lines += ["", *_devices(diff, color=color)]
    return "\n".join(lines) + "\n"


def render_diff_json(diff: PlanDiff) -> str:
    """The diff as JSON, ending in a line end; `docs/plan.md` describes its keys."""
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
    document = {
        "version": 1,
        "kind": "devmap diff",
        "same_model": diff.same_model,
        "same_config": diff.same_config,
        "moves": moves,
        "devices": [asdict(change) for change in diff.devices],
        "only_before": list(diff.only_before),
        "only_after": list(diff.only_after),
    }
    return json.dumps(document, indent=2) + "\n"


def _only(names: Sequence[str], sign: str, side: str, width: int) -> Iterator[str]:
    names = list(_ranges(names))
    for name in names[:_MOST_NAMES]:
        yield shortened(f"{sign} {name or '(whole model)'}: only in the model {side}", width)
    if len(names) > _MOST_NAMES:
        yield f"{sign} and {len(names) - _MOST_NAMES:,} more"


def _ranges(names: Sequence[str]) -> Iterator[str]:
    """Numbered neighbours as one range: `layers.3`, `layers.4` are `layers[3-4]`."""
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
    labels = [
        f"{move.path} to {move.last}" if move.last not in {"", move.path} else move.path or "(whole model)"
        for move in moves
    ]
    changes = [
        f"{_place(move.before, move.executed_before)} -> {_place(move.after, move.executes_after)}"
        for move in moves
    ]
    sizes = ["" if move.nbytes is None else format_bytes(move.nbytes) for move in moves]
    room = min(max(map(len, labels), default=0), 52)
    wide = max(map(len, changes), default=0)
    for label, change, size in zip(labels, changes, sizes, strict=True):
        tail = f"  {change:<{wide}}  {size:>9}".rstrip()
        yield f"{shortened(label, max(12, width - len(tail))):<{room}}{tail}"


def _place(home: int | str | None, executes: int | str | None) -> str:
    if home is None:
        return "not there"
    return (
        _name(home) if executes is None or executes == home else f"{_name(home)} (runs on {_name(executes)})"
    )


def _name(device: int | str) -> str:
    return f"device {device}" if isinstance(device, int) else device


def _devices(diff: PlanDiff, *, color: bool) -> Iterator[str]:
    names = max((len(_name(change.device)) for change in diff.devices), default=0)
    for change in diff.devices:
        before, after = (
            _amount(change.before_bytes, change.reserved_before),
            _amount(change.after_bytes, change.reserved_after),
        )
        gained = (change.after_bytes or 0) - (change.before_bytes or 0)
        sign = f"{'+' if gained > 0 else '-'}{format_bytes(abs(gained))}" if gained else "same"
        if color and gained:
            sign = f"{_RED if gained > 0 else _GREEN}{sign}{_PLAIN}"
        yield f"{_name(change.device):<{names}}  {before:>21} -> {after:>21}  {sign}"


def _amount(weights: int | None, reserved: int | None) -> str:
    """Weights and what is kept beside them: `12.1 GB + 1.4 GB`."""
    if weights is None:
        return "not offered"
    return f"{format_bytes(weights)} + {format_bytes(reserved)}" if reserved else format_bytes(weights)
