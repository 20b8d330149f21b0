"""Runs of neighbouring placements with one home and one executing device, named by the modules they cover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Placement, Plan

__all__ = ["PlacementRun", "runs_of"]


@dataclass(frozen=True, slots=True)
class PlacementRun:
    """From `first` to `last`, both included; a single module where they are equal."""

    first: str
    last: str
    home: Device
    executes_on: Device
    nbytes: int


def runs_of(plan: Plan, inventory: Inventory) -> Iterator[PlacementRun]:
    """Yield the placements of a plan in order, as few rows as their devices allow.

    A subtree that one run covers is one name.
    """
    order = [placement.path for placement in plan.placements]
    spans = _spans(order)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and _together(plan.placements[start], plan.placements[end]):
            end += 1
        yield _run(plan.placements[start:end], start, end, spans, inventory)
        start = end


def _together(one: Placement, other: Placement) -> bool:
    return one.home == other.home and one.executes_on == other.executes_on


def _run(
    placements: Sequence[Placement],
    start: int,
    end: int,
    spans: dict[str, tuple[int, int]],
    inventory: Inventory,
) -> PlacementRun:
    first, last = placements[0].path, placements[-1].path
    while first and _inside(parent := first.rpartition(".")[0], start, end, spans, inventory):
        first = parent
    while last and _inside(parent := last.rpartition(".")[0], start, end, spans, inventory):
        last = parent
    return PlacementRun(
        first,
        last,
        placements[0].home,
        placements[0].executes_on,
        sum(placement.nbytes for placement in placements),
    )


def _inside(path: str, start: int, end: int, spans: dict[str, tuple[int, int]], inventory: Inventory) -> bool:
    """Return whether the whole subtree lies in the run.

    Lists of layers are no name of their own, so that a row says which layers.
    """
    first, last = spans[path]
    numbered = any(child.rpartition(".")[2].isdecimal() for child in inventory.children.get(path, ()))
    return start <= first and last < end and (not path or not numbered)


def _spans(order: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the first and last place of every subtree."""
    spans: dict[str, tuple[int, int]] = {}
    for at, placed in enumerate(order):
        spans[placed] = (at, at)
        path = placed
        while path:
            path = path.rpartition(".")[0]
            spans[path] = (spans.get(path, (at, at))[0], at)
    return spans
