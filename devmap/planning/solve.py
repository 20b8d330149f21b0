"""A problem solved: homes and streaming brought into agreement.

Homes decide what streams where, what streams decides how much each device keeps free, and that decides the homes. The first try keeps
nothing free, so that what fits to the byte stays to the byte. Each further try keeps what the last one needed. A device's reserve
only grows and each atom is left to the CPU at most once, so the tries end; a last step gives back what later tries no longer needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.planning.problem import Overflow, Solution
from devmap.planning.streaming import stream
from devmap.planning.tiers import assign

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.device import Device
    from devmap.planning.problem import Problem

__all__ = ["solve"]

_TWO_SLOTS = 2


def solve(problem: Problem) -> Solution | Overflow:
    """Homes and executing devices within every budget, or what found no place.

    Two slots a streaming device are tried first. One slot is taken instead where two find no plan, where the room for two
    drives out a larger block than any that streams with one, or leaves an accelerator empty that one would fill.
    """
    overlapped = _settle(problem, most_slots=_TWO_SLOTS)
    if isinstance(overlapped, Solution) and not overlapped.streaming.slots:
        return overlapped
    plain = _settle(problem, most_slots=1)
    if isinstance(overlapped, Overflow) or isinstance(plain, Overflow):
        return overlapped if isinstance(overlapped, Solution) else plain
    gains = any(ours < theirs for ours, theirs in zip(_waste(problem, plain), _waste(problem, overlapped), strict=True))
    return plain if gains else overlapped


def _waste(problem: Problem, solution: Solution) -> tuple[int, int]:
    """The largest atom that found no accelerator, and the number of accelerators that hold nothing."""
    spilled = (problem.loads.slot[at] for at, home in enumerate(solution.homes) if not home.is_accelerator)
    used = {home for home in solution.homes if home.is_accelerator}
    return max(spilled, default=0), len(problem.accelerators) - len(used)


def _settle(problem: Problem, *, most_slots: int) -> Solution | Overflow:
    trained = frozenset(at for at, frozen in enumerate(problem.loads.frozen) if not frozen)
    everything = frozenset(range(len(problem.atoms)))
    in_place = trained if problem.accelerators else everything
    reserve: dict[Device, int] = {}
    while True:
        found = assign(problem, reserve, in_place)
        if isinstance(found, Overflow):
            return found
        homes, gaps = found
        streaming = stream(problem, homes, in_place, most_slots=most_slots)
        if _agrees(streaming.needs, reserve) and streaming.in_place <= in_place:
            break
        reserve = {device: max(reserve.get(device, 0), streaming.needs.get(device, 0)) for device in {*reserve, *streaming.needs}}
        in_place |= streaming.in_place
    settled = Solution(homes, streaming, gaps)
    return _tightened(problem, settled, reserve, in_place, most_slots) or settled


def _agrees(needs: Mapping[Device, int], reserve: Mapping[Device, int]) -> bool:
    return all(nbytes <= reserve.get(device, 0) for device, nbytes in needs.items())


def _tightened(
    problem: Problem, settled: Solution, reserve: Mapping[Device, int], in_place: frozenset[int], most_slots: int
) -> Solution | None:
    """The solution that keeps no more free than the settled one needs, if it holds too."""
    needs = settled.streaming.needs
    if all(needs.get(device, 0) == nbytes for device, nbytes in reserve.items()):
        return None
    found = assign(problem, needs, in_place)
    if isinstance(found, Overflow):
        return None
    homes, gaps = found
    streaming = stream(problem, homes, in_place, most_slots=most_slots)
    if not _agrees(streaming.needs, needs) or not streaming.in_place <= in_place:
        return None
    return Solution(homes, streaming, gaps)
