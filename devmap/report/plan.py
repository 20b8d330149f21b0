"""A plan for a reader: a bar per device, runs of modules folded, what streams where, every charge with its arithmetic, the reasons."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from devmap.config.device import CPU
from devmap.config.size import format_bytes
from devmap.report.plan_runs import runs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import DeviceUse, Plan
    from devmap.report.plan_runs import Run

__all__ = ["render_plan"]

_WEIGHTS, _RESERVED, _FREE = "█", "▒", "·"
_GREEN, _YELLOW, _DIM, _BOLD, _PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


def render_plan(plan: Plan, inventory: Inventory, *, width: int = 100, color: bool = False) -> str:
    """The text of a plan, no line longer than `width` (at least 60), ending in a line end; ANSI colours with `color`."""
    width = max(width, 60)
    lines = [*_head(plan, inventory), "", *_bars(plan, width, color=color), ""]
    lines += [f"{_WEIGHTS} weights  {_RESERVED} reserved  {_FREE} free", ""]
    lines += _placements(plan, inventory, width, color=color)
    lines += _charges(plan, width)
    if plan.reasons:
        lines += ["", *_titled("why", color=color)]
        for reason in plan.reasons:
            lines += wrap(reason, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    if plan.predicted_seconds is not None:
        bound = f", at best {plan.bound_seconds:.3g} s" if plan.bound_seconds is not None else ""
        lines += ["", f"one pass: {plan.predicted_seconds:.3g} s predicted{bound}"]
    return "\n".join(lines) + "\n"


def _head(plan: Plan, inventory: Inventory) -> Iterator[str]:
    name = inventory.architecture.class_name if inventory.architecture else "model"
    nbytes = sum(placement.nbytes for placement in plan.placements)
    dtype = plan.dtype or "the checkpoint's dtypes"
    yield f"{name}: {format_bytes(nbytes)} in {dtype}, placed by {plan.strategy}"


def _titled(title: str, *, color: bool) -> list[str]:
    return [f"{_BOLD}{title}{_PLAIN}" if color else title]


def _bars(plan: Plan, width: int, *, color: bool) -> Iterator[str]:
    sized = [use.capacity_bytes for use in plan.devices if use.capacity_bytes is not None]
    names = {use.device: _name(use.device, plan) for use in plan.devices}
    label = max(map(len, names.values()), default=0)
    figures = {use.device: _figures(use) for use in plan.devices}
    room = width - label - max(map(len, figures.values()), default=0) - 4
    for use in plan.devices:
        bar = _bar(use, max(room, 8), color=color) if sized and use.capacity_bytes else " " * max(room, 8)
        yield f"{names[use.device]:<{label}}  {bar}  {figures[use.device]}"


def _figures(use: DeviceUse) -> str:
    reserved = f" + {format_bytes(use.reserved_bytes)}" if use.reserved_bytes else ""
    limit = "no limit" if use.capacity_bytes is None else f"of {format_bytes(use.capacity_bytes)}"
    free = "" if use.free_bytes is None else f", {format_bytes(use.free_bytes)} free"
    return f"{format_bytes(use.weight_bytes)}{reserved} {limit}{free}"


def _bar(use: DeviceUse, room: int, *, color: bool) -> str:
    """A device's capacity in `room` characters; what is not nothing shows at least one."""
    assert use.capacity_bytes
    weights = _share(use.weight_bytes, use.capacity_bytes, room)
    reserved = min(_share(use.reserved_bytes, use.capacity_bytes, room), room - weights)
    if use.reserved_bytes and not reserved:
        weights, reserved = weights - 1, 1
    parts = (_WEIGHTS * weights, _RESERVED * reserved, _FREE * (room - weights - reserved))
    if not color:
        return "".join(parts)
    return f"{_GREEN}{parts[0]}{_YELLOW}{parts[1]}{_PLAIN}{_DIM}{parts[2]}{_PLAIN}"


def _share(nbytes: int, capacity: int, room: int) -> int:
    return min(room, max(1, round(nbytes * room / capacity))) if nbytes else 0


def _placements(plan: Plan, inventory: Inventory, width: int, *, color: bool) -> Iterator[str]:
    yield from _titled("in the model's order", color=color)
    for run in runs_of(plan, inventory):
        yield _row(run, plan, width)


def _row(run: Run, plan: Plan, width: int) -> str:
    where = _name(run.home, plan)
    if run.executes_on != run.home:
        where += f", runs on {_name(run.executes_on, plan)}"
    elif run.home == CPU and any(use.device.is_accelerator for use in plan.devices):
        where += ", computed there"
    tail = f"  {format_bytes(run.nbytes):>9}  {where}"
    label = f"{run.first} to {run.last}" if run.last != run.first else run.first or "(whole model)"
    room = max(width - len(tail) - 2, 12)
    if len(label) > room:
        label = f"{label[: room // 2 - 1]}...{label[len(label) - (room - room // 2 - 2) :]}"
    return f"  {label:<{min(room, 52)}}{tail}"


def _charges(plan: Plan, width: int) -> Iterator[str]:
    charged = [use for use in plan.devices if use.charges]
    if not charged:
        return
    yield ""
    yield "reserved"
    for use in charged:
        for charge in use.charges:
            arithmetic = f" = {charge.arithmetic}" if charge.arithmetic else ""
            text = f"{_name(use.device, plan)}: {charge.what} {format_bytes(charge.nbytes)}{arithmetic}"
            yield from wrap(text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def _name(device: Device, plan: Plan) -> str:
    backend = plan.backends.get(device.index) if device.is_accelerator else None
    return f"{backend}:{device}" if backend else f"device {device}" if device.is_accelerator else str(device)
