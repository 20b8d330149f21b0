"""From the optimum of the relaxation to a placement: whole atoms, evenly spaced, within every budget.

The optimum of the relaxation says which share of each kind of atoms lives where and is computed by whom.
Here the shares become whole numbers, the atoms of a kind are dealt out evenly along the order (Bresenham:
the prefix of every length holds its share of each mode, to one atom), and residents fill the accelerators in
runs, or in turns so that several links copy at the same time. Even spacing is what lets two slots hide the
copies: residents in one block leave the link idle beside them and late behind them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, Device
from devmap.config.values.strategy import Objective
from devmap.planning.fastest.schedule import pass_time
from devmap.planning.placement.execution import is_within_budgets, streamed
from devmap.planning.problem.model import Solution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.planning.fastest.bound import Relaxation
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.fastest.schedule import PassTime
    from devmap.planning.problem.model import PlacementProblem, Streaming

__all__ = [
    "IN_PLACE",
    "MODES",
    "RESIDENT",
    "STREAM",
    "Candidate",
    "Counts",
    "DealOrder",
    "Homes",
    "Reserve",
    "assign_modes",
    "counts_of",
    "judge",
    "mode_of",
    "reserve_of",
]

RESIDENT, STREAM, IN_PLACE, DISK_STREAM, DISK_IN_PLACE = (
    "resident",
    "stream",
    "in place",
    "disk stream",
    "disk in place",
)
MODES = (RESIDENT, IN_PLACE, STREAM, DISK_IN_PLACE, DISK_STREAM)
"""The ways in which an atom is served."""

_LARGE = 5_000
"""Atoms past which one slot is not looked at where two have room."""

Counts = dict[int, dict[str, int]]
"""By kind: how many of its atoms are served in each way."""


@dataclass(frozen=True)
class Candidate:
    """A placement within every budget, and its time."""

    solution: Solution
    time: PassTime

    def key(self, objective: Objective) -> tuple[int, int]:
        """Return what is made small: the objective, then the other one."""
        both = (self.time.latency, self.time.stage)
        return both if objective is Objective.LATENCY else both[::-1]


@dataclass(frozen=True)
class DealOrder:
    """How atoms are dealt out."""

    order: tuple[Device, ...]
    """The accelerators, the first to be filled first."""
    streams: bool = True
    """Whether anything is streamed. If so each kind's modes are spread evenly; otherwise residents stand in
    front: fewer cuts."""
    in_turns: bool = False
    """Whether the accelerators take turns block by block, rather than hold one run each."""


@dataclass(frozen=True)
class Homes:
    """Homes for all atoms, and the atoms that the CPU is to compute."""

    homes: tuple[Device, ...]
    in_place: frozenset[int]
    unplaced: Mapping[int, int]
    """Residents by kind that found no room on an accelerator and went down."""


def judge(
    problem: PlacementProblem,
    costs: PassCosts,
    homes: Sequence[Device],
    in_place: frozenset[int],
    objective: Objective,
) -> Candidate | None:
    """Return the better of two slots and one for these homes.

    None where neither stays within every budget.
    """
    best: Candidate | None = None
    for most_slots in (2, 1):
        streaming = streamed(problem, homes, in_place, most_slots=most_slots)
        if is_within_budgets(problem, homes, streaming):
            time = pass_time(costs, homes, streaming)
            found = None if time is None else Candidate(Solution(tuple(homes), streaming), time)
            if found is not None and (best is None or found.key(objective) < best.key(objective)):
                best = found
        # Without slots their number changes nothing. For a large model two slots that fit are taken as they
        # are.
        if not streaming.slots or (best is not None and len(homes) > _LARGE):
            break
    return best


@dataclass(frozen=True)
class Reserve:
    """Bytes to keep free on each device while homes are chosen."""

    fixed: Mapping[Device, int]
    """Whatever lives where: slots, the CPU's activations."""
    whole: Mapping[Device, int]
    """With what goes along with the atoms that do not compute where they live, or compute on the CPU:
    buffers, the workload's share."""

    def larger(self, other: Reserve) -> Reserve:
        """Enough for both."""
        return Reserve(_larger(self.fixed, other.fixed), _larger(self.whole, other.whole))


def _larger(one: Mapping[Device, int], other: Mapping[Device, int]) -> dict[Device, int]:
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}


def reserve_of(problem: PlacementProblem, homes: Sequence[Device], streaming: Streaming) -> Reserve:
    """Return what a placement that was tried would have needed to be kept free."""
    loads = problem.loads
    fixed = {device: slots.nbytes for device, slots in streaming.slots.items() if device in streaming.needs}
    if CPU in streaming.needs:
        fixed[CPU] = fixed.get(CPU, 0) + problem.activation_bytes
    whole = dict(streaming.needs)
    stays = sum(
        loads.run[at] + loads.buffers[at]
        for at, (home, device) in enumerate(zip(homes, streaming.execution_devices, strict=True))
        if home == device == CPU
    )
    if stays:
        whole[CPU] = whole.get(CPU, 0) + stays
    return Reserve(fixed, whole)


def counts_of(problem: PlacementProblem, relaxation: Relaxation) -> Counts:
    """Whole numbers for the fractional shares of the atoms that are not pinned.

    Residents rounded down, the rest by largest remainder.
    """
    free = Counter(
        relaxation.kind_of[at] for unit in problem.units if unit.pin is None for at in unit.members
    )
    counts: Counts = {}
    for kind, many in free.items():
        shares: dict[str, float] = {}
        for mode, share in relaxation.shares.get(kind, {}).items():
            word = mode_of(*mode)
            shares[word] = shares.get(word, 0.0) + share
        if not shares:
            counts[kind] = {RESIDENT: many}
            continue
        whole = {word: int(many * shares[word] + 1e-6) for word in MODES if word in shares}
        remainder = {word: whole[word] - many * share for word, share in shares.items() if word != RESIDENT}
        for word in (sorted(remainder, key=remainder.__getitem__) or [RESIDENT]) * many:
            if sum(whole.values()) >= many:
                break
            whole[word] += 1
        counts[kind] = whole
    return counts


def mode_of(home: Device, executes_on: Device) -> str:
    """Return how an atom with this home and executing device is served."""
    if home.is_accelerator:
        return RESIDENT
    if home == CPU:
        return IN_PLACE if executes_on == CPU else STREAM
    return DISK_IN_PLACE if executes_on == CPU else DISK_STREAM


def assign_modes(
    problem: PlacementProblem,
    kind_of: Sequence[int],
    counts: Counts,
    layout: DealOrder,
    *,
    reserve: Mapping[Device, int],
    prefers_cpu: frozenset[int],
) -> Homes | None:
    """Place every unit by these counts; None where cpu and disk have no room for what goes down.

    `prefers_cpu` are the atoms that the CPU computes sooner than they are copied: what a unit's other members
    do when it goes down.
    """
    rooms = _BytesLeft(problem, reserve, layout)
    words = _dealt(problem, kind_of, counts, evenly=layout.streams)
    down = STREAM if layout.streams else IN_PLACE
    unplaced: dict[int, int] = {}
    in_place = {at for at, frozen in enumerate(problem.loads.frozen) if not frozen}
    placed: list[Device] = [CPU] * len(problem.atoms)
    for number, (members, pin, _, excluded) in enumerate(problem.units):
        heaviest = (
            members[0] if len(members) == 1 else max(members, key=lambda at: (problem.loads.slot[at], -at))
        )
        word = words.get(heaviest, down)
        home = rooms.own[pin] if pin is not None else None
        if home is None and word == RESIDENT:
            home = rooms.on_accelerator(number, excluded)
            if home is None:
                unplaced[kind_of[heaviest]] = unplaced.get(kind_of[heaviest], 0) + 1
                word = down
        if home is None:
            home = rooms.below(number, excluded, disk_first=word in {DISK_STREAM, DISK_IN_PLACE})
            if home is None:
                return None
        for at in members:
            placed[at] = home
        if not home.is_accelerator:
            own = heaviest if pin is None else -1
            in_place.update(
                [
                    at
                    for at in members
                    if (word in {IN_PLACE, DISK_IN_PLACE} if at == own else at in prefers_cpu)
                ]
            )
    return Homes(tuple(placed), frozenset(in_place), unplaced)


def _dealt(
    problem: PlacementProblem, kind_of: Sequence[int], counts: Counts, *, evenly: bool
) -> dict[int, str]:
    """Return a mode for every atom that is not pinned.

    Each kind's modes spread evenly along the order, or one after the other.
    """
    members: dict[int, list[int]] = {}
    for at in sorted([at for unit in problem.units if unit[1] is None for at in unit[0]]):
        members.setdefault(kind_of[at], []).append(at)
    found: dict[int, str] = {}
    for kind, alike in members.items():
        modes = tuple((word, many) for word, many in counts[kind].items() if many)
        found.update(zip(alike, _line(modes, evenly=evenly), strict=True))
    return found


@lru_cache(maxsize=256)
def _line(modes: tuple[tuple[str, int], ...], *, evenly: bool) -> tuple[str, ...]:
    """Return the modes of one kind's atoms in order."""
    if len(modes) == 1 or not evenly:
        return tuple(
            word for word, many in sorted(modes, key=lambda pair: MODES.index(pair[0])) for _ in range(many)
        )
    total = sum(many for _, many in modes)
    used = [0] * len(modes)
    found = []
    for seen in range(1, total + 1):
        best, owed = -1, 0
        for place, (_, many) in enumerate(modes):
            mine = seen * many - used[place] * total
            if used[place] < many and (best < 0 or mine > owed):
                best, owed = place, mine
        used[best] += 1
        found.append(modes[best][0])
    return tuple(found)


class _BytesLeft:
    """What is left on each device while units are dealt out.

    A class because every step takes from the same rooms.
    """

    def __init__(self, problem: PlacementProblem, reserve: Mapping[Device, int], layout: DealOrder) -> None:
        self.problem = problem
        self.in_turns = layout.in_turns
        self.order = layout.order
        self.own = {device: device for device in problem.limits}
        self.left = {device: limit - reserve.get(device, 0) for device, limit in problem.limits.items()}
        self.resident, self.lower = problem.resident_bytes, problem.lower_bytes
        for number, unit in enumerate(problem.units):
            if unit.pin is not None:
                self.left[unit.pin] -= (self.resident if unit.pin.is_accelerator else self.lower)[number]
        self.whole = {device: max(1, left) for device, left in self.left.items()}
        self.now = 0
        self.tiers = {
            first: tuple(tier for tier in (first, second) if tier in self.left)
            for first, second in ((CPU, DISK), (DISK, CPU))
        }

    def _take(self, number: int, device: Device, excluded: frozenset[Device]) -> bool:
        nbytes = (self.lower if device in (CPU, DISK) else self.resident)[number]
        if nbytes > self.left[device] or (excluded and device in excluded):
            return False
        self.left[device] -= nbytes
        return True

    def on_accelerator(self, number: int, excluded: frozenset[Device]) -> Device | None:
        """Return the device whose turn it is.

        In runs the one being filled, or a later one, which then is the one being filled.
        """
        if self.in_turns:
            emptiest = sorted(self.order, key=lambda device: -self.left[device] / self.whole[device])
            return next((device for device in emptiest if self._take(number, device, excluded)), None)
        for at in range(self.now, len(self.order)):
            if self._take(number, self.order[at], excluded):
                self.now = at
                return self.order[at]
        return None

    def below(self, number: int, excluded: frozenset[Device], *, disk_first: bool) -> Device | None:
        """Return the tier that is wished for if it has room, else the other.

        An accelerator with a gap before giving up.
        """
        for device in self.tiers[DISK if disk_first else CPU]:
            if self._take(number, device, excluded):
                return device
        return next((device for device in self.order if self._take(number, device, excluded)), None)
