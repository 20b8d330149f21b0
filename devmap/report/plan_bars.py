"""A bar and a row of figures per device: weights, workload, room to stream, headroom, what is free."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name as plain_name
from devmap.config.values.size import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.values.device import Device
    from devmap.plan.model import DeviceUse, Plan

__all__ = ["KINDS", "bytes_by_kind", "device_name", "render_bars"]

KINDS = ("weights", "workload", "streaming", "headroom", "free")
"""What a device's bytes are kept for, in the order of a bar."""
_BLOCKS = dict(zip(KINDS, "█▓▒░·", strict=True))
_ASCII = dict(zip(KINDS, "#+=-.", strict=True))
_COLORS = {
    "weights": "\x1b[32m",
    "workload": "\x1b[36m",
    "streaming": "\x1b[33m",
    "headroom": "\x1b[35m",
    "free": "\x1b[2m",
}
_PLAIN = "\x1b[0m"
_STREAMING = ("slots", "buffers")
_NARROWEST_BAR = 16


@dataclass(frozen=True, slots=True)
class _BarRow:
    """One device's bytes by kind."""

    name: str
    capacity: int | None
    amounts: dict[str, int]


def device_name(device: Device, plan: Plan) -> str:
    """Return what a reader calls a device: `device 0`, `cuda:0` where the config says so, `cpu`, `disk`."""
    backend = plan.backends.get(device.index) if device.is_accelerator else None
    if backend is None:
        return plain_name(device)
    local = f"{backend}:{device.index}"
    return local if device.node is None else f"{device.node}/{local}"


def render_bars(plan: Plan, width: int, *, color: bool = False, ascii_only: bool = False) -> Iterator[str]:
    """Yield a line per device and a legend.

    Where the figures leave no room for a bar, they stand in a line of their own below it.
    """
    marks = _ASCII if ascii_only else _BLOCKS
    rows = [_row(use, plan) for use in plan.devices]
    shown = [kind for kind in KINDS if kind in {"weights", "free"} or any(row.amounts[kind] for row in rows)]
    label = max((len(row.name) for row in rows), default=0)
    cells = [[_cell(row, kind) for kind in (*shown, "of")] for row in rows]
    titles = [*shown, "of"]
    widths = (
        [max(len(title), *(len(line[at]) for line in cells)) for at, title in enumerate(titles)]
        if cells
        else []
    )
    room = width - label - 2 - sum(widths) - 2 * len(widths)
    if room >= _NARROWEST_BAR:
        yield " " * (label + 2 + room) + "".join(
            f"  {title:>{size}}" for title, size in zip(titles, widths, strict=True)
        )
        for row, line in zip(rows, cells, strict=True):
            figures = "".join(f"  {cell:>{size}}" for cell, size in zip(line, widths, strict=True))
            yield f"{row.name:<{label}}  {_bar(row, shown, room, marks, color=color)}{figures}"
    else:
        yield from _two_lines(rows, shown, width, label, marks, color=color)
    yield ""
    yield "  ".join(f"{marks[kind]} {kind}" for kind in shown)


def _two_lines(
    rows: Sequence[_BarRow],
    shown: Sequence[str],
    width: int,
    label: int,
    marks: dict[str, str],
    *,
    color: bool,
) -> Iterator[str]:
    limits = [_cell(row, "of") for row in rows]
    room = width - label - 2 - max(map(len, limits), default=0) - 2
    for row, limit in zip(rows, limits, strict=True):
        yield (
            f"{row.name:<{label}}  {_bar(row, shown, room, marks, color=color)} "
            f" {limit:>{width - label - room - 4}}"
        )
        told = [kind for kind in shown if _cell(row, kind) not in {"", "0 B"} or kind == "weights"]
        figures = ", ".join(
            f"{kind} {_cell(row, kind)}".replace(" ", "\u00a0") for kind in told
        )  # a figure is not parted from its unit
        for line in wrap(
            figures, width, initial_indent=" " * (label + 2), subsequent_indent=" " * (label + 4)
        ):
            yield line.replace("\u00a0", " ")


def bytes_by_kind(use: DeviceUse) -> dict[str, int]:
    """Return the bytes of one device for each of `KINDS`."""
    amounts = dict.fromkeys(KINDS, 0)
    amounts["weights"] = use.weight_bytes
    for charge in use.charges:
        kind = (
            "headroom"
            if charge.what == "headroom"
            else "streaming"
            if charge.what in _STREAMING
            else "workload"
        )
        amounts[kind] += charge.nbytes
    amounts["free"] = max(0, use.free_bytes or 0)
    return amounts


def _row(use: DeviceUse, plan: Plan) -> _BarRow:
    return _BarRow(device_name(use.device, plan), use.capacity_bytes, bytes_by_kind(use))


def _cell(row: _BarRow, kind: str) -> str:
    if row.capacity is None:
        return "no limit" if kind == "of" else "" if kind == "free" else format_bytes(row.amounts[kind])
    return format_bytes(row.capacity if kind == "of" else row.amounts[kind])


def _bar(row: _BarRow, shown: Sequence[str], room: int, marks: dict[str, str], *, color: bool) -> str:
    """Return a device's capacity in `room` characters; what is not nothing shows at least one."""
    if not row.capacity:
        return " " * room
    lengths = _lengths([row.amounts[kind] for kind in shown], row.capacity, room)
    parts = [(kind, marks[kind] * length) for kind, length in zip(shown, lengths, strict=True) if length]
    if not color:
        return "".join(part for _, part in parts)
    return "".join(f"{_COLORS[kind]}{part}{_PLAIN}" for kind, part in parts)


def _lengths(amounts: Sequence[int], capacity: int, room: int) -> list[int]:
    """Whole characters for each amount, `room` in all.

    What is lost or gained by rounding is taken from the longest.
    """
    lengths = [max(1, round(nbytes * room / capacity)) if nbytes else 0 for nbytes in amounts]
    longest = max(range(len(lengths)), key=lambda at: lengths[at])
    lengths[longest] += room - sum(lengths)
    return lengths
