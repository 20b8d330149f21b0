"""The last resort: units packed onto devices out of order, where no split of the order into runs fits.

Finding out whether some packing fits is bin packing, which is NP-complete: exact answers cost exponential
time at worst. Here:

- Bytes alone refuse at once: more than all devices together, or a unit that no device could hold empty.
- Otherwise units are placed largest first, each on the fullest accelerator that still holds it, then cpu,
  then disk (best fit decreasing: D. Johnson, "Near-optimal bin packing algorithms" (1973)), and choices are
  taken back where that runs into a dead end. A branch is cut where what is to come is more than the devices
  with room for the smallest of it have left, and where the same units were left for the same rooms before
  (devices that nothing tells apart count as equal). A search that ends by itself is exact.
- It stops after `_MOST_STEPS` steps, and past `_LARGE` units after the first way: then a packing may exist
  that was not found, and `Packing.was_exhaustive` says so.

What is found is put in order again as far as that goes: units of equal size trade places so that they follow
the devices' order or its reverse, then single units move and pairs swap while that makes cuts fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.problem.model import PlacementProblem, Solution

    Settle = Callable[[Sequence[Device]], Solution | None]

__all__ = ["Packing", "fits_by_bytes", "has_room", "narrowest", "pack"]

_MOST_STEPS = 10_000
"""Units placed, taken back and placed again: a tenth of a second."""
_LARGE = 1_000
"""Units past which only the first way is gone."""
_MOST_SETS = 64
"""Sets of devices that are compared with what must lie on them."""
_MOST_TO_ORDER = 200
"""Units past which no single ones are moved to make cuts fewer: that looks at all pairs."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What a search found, and how far it went."""

    solution: Solution | None
    was_exhaustive: bool
    """Whether every packing was ruled out, where none is found."""
    steps: int
    """How often a unit was placed."""


def fits_by_bytes(problem: PlacementProblem) -> bool:
    """Return whether bytes alone leave hope: a necessary condition, linear in units."""
    least = _least(problem)
    if sum(least) > sum(problem.limits.values()) or narrowest(problem) is not None:
        return False
    if problem.one_strategy is not None:
        return max(least, default=0) <= max(problem.limits.values())
    for (pin, _), members in problem.units_by_constraint.items():
        heaviest = (
            {
                max(members, key=amounts.__getitem__)
                for amounts in (problem.resident_bytes, problem.lower_bytes)
            }
            if pin is None
            else ()
        )
        if not all(has_room(problem, at) for at in heaviest):
            return False
    return True


def narrowest(problem: PlacementProblem) -> tuple[tuple[Device, ...], int] | None:
    """Devices that are all that pins and `forbid` leave to some units.

    And the bytes of these, if they are more than they may hold.

    Of several the fewest devices. Linear in units, with the square of the number of different sets of devices
    that constraints leave.
    """
    wanted: dict[tuple[Device, ...], int] = {}
    if len(problem.units_by_constraint) == 1:  # the same is open to all
        return None
    for (pin, excluded), members in problem.units_by_constraint.items():
        devices = tuple(
            one for one in problem.limits if (one == pin if pin is not None else one not in excluded)
        )
        amounts = (
            problem.resident_bytes if all(one.is_accelerator for one in devices) else problem.lower_bytes
        )
        wanted[devices] = wanted.get(devices, 0) + sum([amounts[at] for at in members])
    for devices in sorted(wanted, key=lambda some: (len(some), some))[:_MOST_SETS]:
        inside = sum(nbytes for some, nbytes in wanted.items() if set(some) <= set(devices))
        if inside > sum(problem.limits[device] for device in devices):
            return devices, inside
    return None


def has_room(problem: PlacementProblem, at: int) -> bool:
    """Return whether some device could hold a unit that is not pinned if nothing else lay there."""
    excluded = problem.units[at].excluded
    return any(
        _bytes_on(problem, device)[at] <= limit
        for device, limit in problem.limits.items()
        if device not in excluded
    )


def pack(problem: PlacementProblem, settle: Settle) -> Packing:
    """Search for homes of all units that `settle` makes a solution of.

    Nothing pinned may be over a budget by itself.
    """
    if not fits_by_bytes(problem):
        return Packing(None, was_exhaustive=True, steps=0)
    search = _PackingSearch(problem, settle)
    homes, solution = search.run()
    if homes is None or solution is None:
        return Packing(None, search.was_exhaustive, search.steps)
    sorted_again = [
        _tidied(problem, _by_size(problem, homes, backwards=backwards)) for backwards in (False, True)
    ]
    for tidy in sorted((tidy for tidy in sorted_again if tidy != homes), key=_all_cuts):
        if _all_cuts(tidy) <= _all_cuts(homes) and (better := settle(tidy)) is not None:
            return Packing(better, was_exhaustive=True, steps=search.steps)
    return Packing(solution, was_exhaustive=True, steps=search.steps)


def _least(problem: PlacementProblem) -> Sequence[int]:
    """Return the fewest bytes that each unit takes anywhere."""
    if problem.resident_bytes == problem.lower_bytes or not problem.lower_tiers:
        return problem.resident_bytes
    return [min(pair) for pair in zip(problem.resident_bytes, problem.lower_bytes, strict=True)]


def _bytes_on(problem: PlacementProblem, device: Device) -> Sequence[int]:
    return problem.resident_bytes if device.is_accelerator else problem.lower_bytes


class _PackingSearch:
    """Depth first, largest unit first.

    A class because every step takes from the same rooms and remembers the same dead ends.
    """

    def __init__(self, problem: PlacementProblem, settle: Settle) -> None:
        self.problem = problem
        self.settle = settle
        self.devices = tuple(problem.limits)
        self.bytes_on = [_bytes_on(problem, device) for device in self.devices]
        least = _least(problem)
        own = {device: device for device in self.devices}  # planning tells tiers apart by identity
        self.homes: list[Device] = [CPU if unit.pin is None else own[unit.pin] for unit in problem.units]
        self.free = sorted(
            (at for at, unit in enumerate(problem.units) if unit.pin is None), key=lambda at: (-least[at], at)
        )
        self.left = [problem.limits[device] for device in self.devices]
        for at, unit in enumerate(problem.units):
            if unit.pin is not None:
                place = self.devices.index(unit.pin)
                self.left[place] -= self.bytes_on[place][at]
        self.to_come = [0, *accumulate(least[at] for at in reversed(self.free))][::-1]
        self.smallest = [least[at] for at in self.free[-1:]] or [0]
        self.excluded = [
            frozenset(self.devices.index(one) for one in problem.units[at].excluded if one in self.devices)
            for at in self.free
        ]
        marked = {place for excluded in self.excluded for place in excluded}
        self.alike = [
            place
            for place, device in enumerate(self.devices)
            if device.is_accelerator and place not in marked
        ]
        self.apart = [place for place in range(len(self.devices)) if place not in self.alike]
        self.dead: set[tuple[int, ...]] = set()
        self.steps = 0
        self.most = max(_MOST_STEPS, len(self.free)) if len(self.free) <= _LARGE else len(self.free)
        self.was_exhaustive = True

    def run(self) -> tuple[list[Device] | None, Solution | None]:
        """Return the first homes that settle."""
        chosen: list[int] = []
        pending = [self._choices(0)]
        leaves, seen = 0, [0]
        while pending:
            depth = len(pending) - 1
            if len(chosen) > depth:
                self._move(chosen.pop(), depth, back=True)
            if not pending[-1]:
                pending.pop()
                if seen.pop() == leaves:
                    self.dead.add(self._state(depth))
                continue
            if depth == len(self.free):
                pending[-1].clear()
                leaves += 1
                self.steps += depth  # settling looks at everything
                solution = self.settle(self.homes)
                if solution is not None:
                    return self.homes, solution
                continue
            if self.steps >= self.most:
                self.was_exhaustive = False
                return None, None
            self.steps += 1
            chosen.append(pending[-1].pop())
            self._move(chosen[-1], depth)
            pending.append(self._choices(depth + 1))
            seen.append(leaves)
        return None, None

    def _move(self, place: int, depth: int, *, back: bool = False) -> None:
        at = self.free[depth]
        self.left[place] += self.bytes_on[place][at] if back else -self.bytes_on[place][at]
        self.homes[at] = self.devices[place]

    def _state(self, depth: int) -> tuple[int, ...]:
        return (
            depth,
            *sorted([self.left[place] for place in self.alike]),
            *[self.left[place] for place in self.apart],
        )

    def _choices(self, depth: int) -> list[int]:
        """Return the devices for the next unit, the best last; none in a dead end."""
        if depth == len(self.free):
            return [0]
        least = self.smallest[0]
        if (
            self.to_come[depth] > sum([left for left in self.left if left >= least])
            or self._state(depth) in self.dead
        ):
            return []
        at, excluded = self.free[depth], self.excluded[depth]
        fitting = [
            place
            for place, left in enumerate(self.left)
            if self.bytes_on[place][at] <= left and place not in excluded
        ]
        return sorted(fitting, key=lambda place: (-self.devices[place].tier, -self.left[place], -place))


# --- in order again
# ---------------------------------------------------------------------------------------------------------


def _by_size(problem: PlacementProblem, homes: Sequence[Device], *, backwards: bool) -> list[Device]:
    """Units that cost the same everywhere trade places.

    So that they lie in the devices' order, or in the reverse one.
    """
    alike: dict[tuple[object, ...], list[int]] = {}
    for at, unit in enumerate(problem.units):
        if unit.pin is None:
            alike.setdefault((problem.resident_bytes[at], problem.lower_bytes[at], unit.excluded), []).append(
                at
            )
    found = list(homes)
    for members in alike.values():
        for at, home in zip(members, sorted([homes[at] for at in members], reverse=backwards), strict=True):
            found[at] = home
    return found


def _tidied(problem: PlacementProblem, homes: Sequence[Device]) -> list[Device]:
    """Fewer cuts by moving single units to a neighbour's device, or swapping them with one that lies there.

    Never to a slower tier.
    """
    found = list(homes)
    if len(found) > _MOST_TO_ORDER:
        return found
    left = dict(problem.limits)
    for at, home in enumerate(found):
        left[home] -= _bytes_on(problem, home)[at]
    has_improved = True
    while has_improved:
        has_improved = False
        for one in range(len(found)):
            for to in _beside(problem, found, one):
                has_improved |= _traded(problem, found, left, one, to)
    return found


def _beside(problem: PlacementProblem, homes: Sequence[Device], at: int) -> list[Device]:
    """Other devices of the same tier that a neighbour of a unit lies on, if it may lie there too."""
    unit, home = problem.units[at], homes[at]
    if unit.pin is not None:
        return []
    near = dict.fromkeys([*homes[max(0, at - 1) : at], *homes[at + 1 : at + 2]])
    return [
        device
        for device in near
        if device != home and device.tier == home.tier and device not in unit.excluded
    ]


def _traded(
    problem: PlacementProblem, homes: list[Device], left: dict[Device, int], one: int, to: Device
) -> bool:
    """Move a unit to a device, by itself or for one that lies there.

    If that has room and makes cuts fewer.
    """
    home = homes[one]
    if home == to:
        return False
    gone, come = _bytes_on(problem, home), _bytes_on(problem, to)
    units = problem.units
    others = [
        at
        for at, lies in enumerate(homes)
        if lies == to and units[at].pin is None and home not in units[at].excluded
    ]
    for other in (None, *others):
        returned = 0 if other is None else come[other]
        if come[one] - returned > left[to] or (0 if other is None else gone[other]) - gone[one] > left[home]:
            continue
        places = [one] if other is None else [one, other]
        before = _cuts(homes, places)
        for place in places:
            homes[place] = to if place == one else home
        if _cuts(homes, places) < before:
            left[to] -= come[one] - returned
            left[home] += gone[one] - (0 if other is None else gone[other])
            return True
        for place in places:
            homes[place] = home if place == one else to
    return False


def _all_cuts(homes: Sequence[Device]) -> int:
    return sum([one != other for one, other in pairwise(homes)])


def _cuts(homes: Sequence[Device], places: Sequence[int]) -> int:
    """Cuts beside these places."""
    edges = {edge for place in places for edge in (place, place + 1) if 0 < edge < len(homes)}
    return sum([homes[edge - 1] != homes[edge] for edge in edges])
