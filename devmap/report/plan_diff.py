"""What changes between two plans, for a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.size import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.plan.diff import Move, PlanDiff

__all__ = ["render_diff"]

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def render_diff(diff: PlanDiff, *, width: int = 100, color: bool = False) -> str:
    """Moves in the model's order, neighbours with the same change in one line; then bytes per device before and after."""
    lines = [] if diff.same_model else ["the two are plans of different models"]
    lines += [_shortened(line, width) for line in _moves(diff)] or ["nothing moves"]
    lines.append("")
    names = max((len(str(change.device)) for change in diff.devices), default=0)
    for change in diff.devices:
        before = "not offered" if change.before_bytes is None else format_bytes(change.before_bytes)
        after = "not offered" if change.after_bytes is None else format_bytes(change.after_bytes)
        gained = (change.after_bytes or 0) - (change.before_bytes or 0)
        sign = f"{'+' if gained > 0 else '-'}{format_bytes(abs(gained))}" if gained else "same"
        if color and gained:
            sign = f"{_RED if gained > 0 else _GREEN}{sign}{_PLAIN}"
        lines.append(f"{change.device!s:<{names}}  {before:>11} -> {after:>11}  {sign}")
    return "\n".join(lines) + "\n"


def _moves(diff: PlanDiff) -> Iterator[str]:
    start = 0
    while start < len(diff.moves):
        end = start + 1
        while end < len(diff.moves) and _change(diff.moves[end]) == _change(diff.moves[start]):
            end += 1
        first, last = diff.moves[start].path or "(whole model)", diff.moves[end - 1].path
        name = first if end == start + 1 else f"{first} to {last}"
        yield f"{name}: {_change(diff.moves[start])}"
        start = end


def _change(move: Move) -> str:
    return f"{_place(move.before, move.executed_before)} -> {_place(move.after, move.executes_after)}"


def _place(home: int | str | None, executes: int | str | None) -> str:
    if home is None:
        return "not there"
    return str(home) if executes in {home, None} else f"{home} (runs on {executes})"


def _shortened(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width // 2 - 2]}...{line[len(line) - (width - width // 2 - 1) :]}"
