"""How much room to stream is worth: the size and number of slots, weighed against what is then not resident.

What is not resident costs in each pass, and the slots that stream it take room from what could be resident.
So both are put in one measure, the weighed bytes of a pass:

- a streamed byte costs 2 where two slots let its copy overlap with compute, 3 where one slot does not;
- a byte that the CPU computes in place, because no slot holds its block, costs 8.

The proportions are a convention, not a measurement (`fastest` is the strategy that reckons with a machine's
rates): a second slot is worth the block that it drives out, and streaming is worth its slots unless they
drive out far more than they serve.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from devmap.planning.problem.model import Slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.planning.problem.model import PlacementProblem

__all__ = ["BlockCosts", "Fitting", "SlotCut", "best_cut", "cost_in_place", "fit_slots"]

_OVERLAPPED = 2
_ALONE = 3
_IN_PLACE = 8
_WEIGHTS = {2: _OVERLAPPED, 1: _ALONE}
_NEVER = -1
"""The slot size of what is not streamed at all."""
_MOST_SIZES = 8
"""Slot sizes that are tried where the workload's share of streamed blocks outgrows the room."""


@dataclass(frozen=True)
class BlockCosts:
    """What matters of units that may spill, by unit: all in bytes."""

    resident: Sequence[int]
    copied: Sequence[int]
    slot: Sequence[int]
    """The slot that holds its largest atom; -1 where it is trained and may not be streamed."""
    beside: Sequence[int]

    @classmethod
    def of(cls, problem: PlacementProblem) -> BlockCosts:
        """Return the costs of a problem's units.

        A unit of several atoms counts as if all of them streamed alike.
        """
        loads = problem.loads
        copied = problem.per_unit(loads.slot)
        slot: Sequence[int] = copied
        if not problem.is_plain:
            slot = [max([loads.slot[at] for at in unit.members]) for unit in problem.units]
        if not all(loads.frozen):
            slot = [
                size if all(loads.frozen[at] for at in unit.members) else _NEVER
                for size, unit in zip(slot, problem.units, strict=True)
            ]
        return cls(problem.resident_bytes, copied, slot, problem.per_unit(problem.beside_bytes))


@dataclass(frozen=True, slots=True)
class SlotCut:
    """How much of one device's run stays resident."""

    cost: int
    """Weighed bytes of everything that is not resident."""
    in_place: int
    """Bytes that the CPU computes although they could be streamed somewhere."""
    resident_bytes: int
    slot_bytes: int


def best_cut(
    run: Sequence[int],
    spilled: Sequence[int],
    costs: BlockCosts,
    room: int,
    *,
    smallest: int = 0,
    least: int = 0,
) -> SlotCut | None:
    """Return the cheapest way to make room for slots at the end of one device's run.

    None where none has room.

    `run` are the units that fill the device in order, `spilled` all others that are executed there, `room`
    what both share. The first unit stays, and at least `least` bytes do, since nothing else has room for
    them; slots hold blocks of `smallest` bytes. For each slot size, from the smallest block to the largest,
    and for two slots and one, the run is as long as the room allows; whatever is larger than the slot is
    computed in place. A larger slot never makes the run longer, so that one walk from its end serves all
    sizes: O(n log n) with the sort. Exact: any choice of slots is one of these, with the longest run that it
    allows.
    """
    loads = list(accumulate((costs.resident[at] for at in run), initial=0))
    found = [
        cut
        for count in _WEIGHTS
        for cut in _cuts(run, spilled, costs, loads, room, count=count)
        if cut.slot_bytes >= smallest and cut.resident_bytes >= least
    ]
    return min(found, key=lambda cut: cut.cost, default=None)


def cost_in_place(costs: BlockCosts, spilled: Iterable[int]) -> int:
    """Return what a pass pays where nothing is streamed: weighed bytes."""
    return _IN_PLACE * sum([costs.copied[at] for at in spilled])


def _cuts(
    run: Sequence[int],
    spilled: Sequence[int],
    costs: BlockCosts,
    loads: Sequence[int],
    room: int,
    *,
    count: int,
) -> Iterable[SlotCut]:
    # Blocks that are not streamed yet, because the slot is too small for them: copied bytes and bytes
    # beside, by the slot that would hold them. As the size grows they move over to `streamed`.
    waiting: dict[int, list[int]] = {}
    looks = Counter(
        zip(
            *(map(column.__getitem__, spilled) for column in (costs.slot, costs.copied, costs.beside)),
            strict=True,
        )
    )
    for (size, copied, beside), many in looks.items():
        one = waiting.setdefault(size, [0, 0])
        one[0] += copied * many
        one[1] += beside * many
    never = waiting.pop(_NEVER, [0, 0])[0]
    in_place = sum(copied for copied, _ in waiting.values())
    streamed = beside_streamed = 0
    # Units run[k:] are not resident. k only falls: a larger slot never leaves more room for residents.
    k = len(run)
    for size in sorted({*waiting, *(costs.slot[at] for at in run)} - {_NEVER}):
        copied, beside = waiting.pop(size, (0, 0))
        streamed, in_place, beside_streamed = streamed + copied, in_place - copied, beside_streamed + beside
        while loads[k] + count * size + beside_streamed > room and k > 1:
            k -= 1
            at = run[k]
            if costs.slot[at] == _NEVER:
                never += costs.copied[at]
            elif costs.slot[at] <= size:
                streamed += costs.copied[at]
                beside_streamed += costs.beside[at]
            else:
                in_place += costs.copied[at]
                one = waiting.setdefault(costs.slot[at], [0, 0])
                one[0] += costs.copied[at]
                one[1] += costs.beside[at]
        # Only the first unit is left and still there is no room; larger slots need more.
        if loads[k] + count * size + beside_streamed > room:
            return
        if streamed:
            yield SlotCut(
                _WEIGHTS[count] * streamed + _IN_PLACE * (in_place + never), in_place, loads[k], size
            )


@dataclass(frozen=True, slots=True)
class Fitting:
    """What one device does for the blocks that are executed there."""

    slots: Slots | None
    beside_bytes: int
    """Buffers and workload of the streamed blocks."""
    left_to_cpu: Sequence[int]
    cost: int


def fit_slots(problem: PlacementProblem, queue: Sequence[int], room: int) -> Fitting:
    """Return the cheapest slots within `room` for the atoms of a queue, which are not resident.

    What fits none is left to the CPU.
    """
    sizes, frozen = problem.loads.slot, problem.loads.frozen
    streamable = queue if all(frozen) else [at for at in queue if frozen[at]]
    by_size = Counter([sizes[at] for at in streamable])
    beside = Counter[int]()
    if any(problem.beside_bytes):
        for at in streamable:
            beside[sizes[at]] += problem.beside_bytes[at]
    whole = sum([sizes[at] for at in queue])
    best: tuple[int, int, int, int] | None = None
    streamed = kept = 0
    for size in sorted(by_size):
        streamed += size * by_size[size]
        kept += beside[size]
        for count, weight in _WEIGHTS.items():
            cost = weight * streamed + _IN_PLACE * (whole - streamed)
            # `<=`: of two that cost the same the larger slot, which streams more blocks.
            if count * size + kept <= room and (best is None or cost <= best[0]):
                best = (cost, count, size, kept)
    # What the workload keeps beside streamed blocks drove the larger ones out. Fewer blocks of full size may
    # be the better choice, which counting by size alone cannot see.
    if kept and (best is None or best[2] < max(by_size)):
        return _fit_a_part(problem, queue, streamable, sorted(by_size), room, whole)
    if best is None:
        return Fitting(None, 0, queue, _IN_PLACE * whole)
    cost, count, size, kept = best
    largest = next(at for at in streamable if sizes[at] == size)
    left = [at for at in queue if sizes[at] > size or not frozen[at]]
    return Fitting(Slots(count, size, largest, len(queue) - len(left)), kept, left, cost)


def _fit_a_part(
    problem: PlacementProblem,
    queue: Sequence[int],
    streamable: Sequence[int],
    sizes: Sequence[int],
    room: int,
    whole: int,
) -> Fitting:
    """Slots where what the workload keeps for streamed blocks outgrows the room.

    The last blocks in order are left to the CPU.
    """
    slot, beside = problem.loads.slot, problem.beside_bytes
    best = Fitting(None, 0, queue, _IN_PLACE * whole)
    for size in [size for size in sizes if size <= room][-_MOST_SIZES:]:
        for count, weight in _WEIGHTS.items():
            kept, streamed, members = 0, 0, set[int]()
            for at in streamable:
                if slot[at] <= size:
                    if count * size + kept + beside[at] > room:
                        break
                    kept += beside[at]
                    streamed += slot[at]
                    members.add(at)
            cost = weight * streamed + _IN_PLACE * (whole - streamed)
            if members and cost < best.cost:
                largest = max(sorted(members), key=slot.__getitem__)
                slots = Slots(count, slot[largest], largest, len(members))
                best = Fitting(slots, kept, [at for at in queue if at not in members], cost)
    return best
