"""Plans and diffs as Markdown, for a comment on a pull request: tables, and bars made of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name as plain_name
from devmap.config.values.size import format_bytes
from devmap.report.legible import legible
from devmap.report.plan_bars import KINDS, bytes_by_kind, device_name
from devmap.report.plan_diff import place_words, ranges
from devmap.report.plan_runs import runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.inventory.model import Inventory
    from devmap.plan.diff import DeviceChange, Move, PlanDiff
    from devmap.plan.model import Plan
    from devmap.planning.savings import Saving

__all__ = ["render_diff_markdown", "render_plan_markdown"]

_CELLS = 20
_MARKS = dict(zip((*KINDS, "reserved"), "█▓▒░·▒", strict=True))
_MOST_ROWS = 60
"""Rows of a table that are shown: a comment may hold 65,536 characters."""


def render_plan_markdown(plan: Plan, inventory: Inventory, savings: Sequence[Saving] = ()) -> str:
    """Return the plan in GitHub's Markdown, ending in a line end: a bar per device, the runs, the reasons.

    `savings` are what quantising while loading would change about it.
    """
    plan, inventory = legible(plan), legible(inventory)
    name = inventory.architecture.class_name if inventory.architecture else "model"
    nbytes = sum(placement.nbytes for placement in plan.placements)
    dtype = plan.dtype or "the dtypes of the checkpoint"
    lines = [
        f"**{_escaped(name)}**: {format_bytes(nbytes)} in {dtype}, placed by {_escaped(plan.strategy)}",
        "",
        *_table(
            ("device", "", *(kind for kind in KINDS if kind != "free"), "free", "of"),
            [
                _device_row(device_name(use.device, plan), bytes_by_kind(use), use.capacity_bytes)
                for use in plan.devices
            ],
            numbers=range(2, 8),
        ),
        "",
        f"`{'` `'.join(f'{_MARKS[kind]} {kind}' for kind in KINDS)}`",
        "",
        *_run_rows(plan, inventory),
    ]
    if savings:
        lines += ["", "Quantised while it is loaded (`model.quantization`):", ""]
        lines += [f"- {_escaped(saving.sentence)}" for saving in savings]
    if plan.reasons:
        lines += [
            "",
            "<details><summary>Why</summary>",
            "",
            *(f"- {_escaped(reason)}" for reason in plan.reasons),
        ]
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def render_diff_markdown(diff: PlanDiff) -> str:
    """Return what moves in GitHub's Markdown, ending in a line end.

    Devices before and after, then every move.
    """
    diff = legible(diff)
    lines = [] if diff.same_model else ["The two are plans of **different models**.", ""]
    for sign, names in (("-", diff.only_before), ("+", diff.only_after)):
        found = list(ranges(names))
        lines += [f"- `{sign} {_code(name or '(whole model)')}`" for name in found[:_MOST_ROWS]]
        if len(found) > _MOST_ROWS:
            lines.append(f"- and {len(found) - _MOST_ROWS:,} more")
    if lines and lines[-1]:
        lines.append("")
    lines += _moves(diff.moves) if diff.moves else ["Nothing moves."]
    if diff.devices:
        lines += ["", *_device_changes(diff.devices)]
    return "\n".join(lines) + "\n"


def _device_row(name: str, amounts: Mapping[str, int], capacity: int | None) -> list[str]:
    figures = [format_bytes(amounts[kind]) if amounts[kind] else "" for kind in KINDS if kind != "free"]
    free = "" if capacity is None else format_bytes(amounts["free"])
    limit = "no limit" if capacity is None else format_bytes(capacity)
    return [_escaped(name), _bar(amounts, capacity), *figures, free, limit]


def _bar(amounts: Mapping[str, int], capacity: int | None) -> str:
    """Return a capacity in 20 characters of code; what is not nothing shows at least one."""
    if not capacity:
        return ""
    lengths = {kind: max(1, round(nbytes * _CELLS / capacity)) for kind, nbytes in amounts.items() if nbytes}
    if not lengths:
        return ""
    longest = max(lengths, key=lambda kind: lengths[kind])
    lengths[longest] += _CELLS - sum(lengths.values())
    return f"`{''.join(_MARKS[kind] * length for kind, length in lengths.items())}`"


def _run_rows(plan: Plan, inventory: Inventory) -> Iterator[str]:
    runs = list(runs_of(plan, inventory))
    rows = [
        [
            _span(run.first, run.last),
            format_bytes(run.nbytes),
            _escaped(device_name(run.home, plan)),
            _escaped(device_name(run.executes_on, plan)),
        ]
        for run in runs[:_MOST_ROWS]
    ]
    yield from _table(("modules", "size", "lives on", "runs on"), rows, numbers=(1,))
    if len(runs) > _MOST_ROWS:
        yield ""
        yield f"and {len(runs) - _MOST_ROWS:,} more runs"


def _moves(moves: Sequence[Move]) -> Iterator[str]:
    rows = [
        [
            _span(move.path, move.last or move.path),
            place_words(move.before, move.executed_before),
            place_words(move.after, move.executes_after),
            "" if move.nbytes is None else format_bytes(move.nbytes),
        ]
        for move in moves[:_MOST_ROWS]
    ]
    yield from _table(("moves", "from", "to", "size"), rows, numbers=(3,))
    if len(moves) > _MOST_ROWS:
        yield ""
        yield f"and {len(moves) - _MOST_ROWS:,} more"


def _device_changes(changes: Sequence[DeviceChange]) -> Iterator[str]:
    rows = []
    for change in changes:
        sides = (
            (change.before_bytes, change.reserved_before, change.capacity_before),
            (change.after_bytes, change.reserved_after, change.capacity_after),
        )
        cells = [plain_name(change.device)]
        for weights, reserved, capacity in sides:
            if weights is None:
                cells += ["", "not offered"]
                continue
            amounts = {"weights": weights, "reserved": reserved or 0}
            if capacity is not None:
                amounts["free"] = max(0, capacity - weights - (reserved or 0))
            cells += [_bar(amounts, capacity), format_bytes(weights + (reserved or 0))]
        gained = sum(filter(None, sides[1][:2])) - sum(filter(None, sides[0][:2]))
        cells.append(f"{'+' if gained > 0 else '-'}{format_bytes(abs(gained))}" if gained else "same")
        rows.append(cells)
    yield from _table(("device", "before", "taken", "after", "taken", "change"), rows, numbers=(2, 4, 5))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---:' if at in numbers else '---' for at in range(len(head)))} |"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _span(first: str, last: str) -> str:
    shown = f"`{_code(first or '(whole model)')}`"
    return shown if first == last else f"{shown} to `{_code(last)}`"


def _code(text: str) -> str:
    """Return a name inside backticks, in a cell of a table."""
    return text.replace("`", "'").replace("|", "\\|").replace("\n", " ")


def _escaped(text: str) -> str:
    """Words in which Markdown shall see no markup."""
    for character in "\\`*_<|[":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
