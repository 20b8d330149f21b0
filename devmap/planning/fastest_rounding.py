"""From the fluid optimum to a placement: whole atoms, evenly spaced, within every budget.

The fluid optimum says which share of each kind of atoms lives where and is computed by whom. Here the shares become whole numbers, the
atoms of a kind are dealt out evenly along the order (Bresenham: the prefix of every length holds its share of each mode, to
one atom), and residents fill the accelerators in runs, or in turns so that several links copy at the same time. Even spacing is what lets
two slots hide the copies: residents in one block leave the link idle beside them and late behind them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK, Device
from devmap.config.strategy import Objective
from devmap.planning.fastest_streaming import is_within_budgets, streamed
from devmap.planning.pass_time import pass_time
from devmap.planning.problem import Solution

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.planning.pass_bound import Fluid
    from devmap.planning.pass_costs import PassCosts
    from devmap.planning.pass_time import PassTime
    from devmap.planning.problem import Problem, Streaming

__all__ = [
    "IN_PLACE",
    "RESIDENT",
    "STREAM",
    "WORDS",
    "Candidate",
    "Counts",
    "Deal",
    "Layout",
    "Reserve",
    "counts_of",
    "deal_out",
    "judge",
    "reserve_of",
    "word_of",
]

RESIDENT, STREAM, IN_PLACE, DISK_STREAM, DISK_IN_PLACE = "resident", "stream", "in place", "disk stream", "disk in place"
WORDS = (RESIDENT, IN_PLACE, STREAM, DISK_IN_PLACE, DISK_STREAM)
"""The ways in which an atom is served."""

Counts = dict[int, dict[str, int]]
"""By kind: how many of its atoms are served in each way."""


@dataclass(frozen=True)
class Candidate:
    """A placement within every budget, and its time."""

    solution: Solution
    time: PassTime

    def key(self, objective: Objective) -> tuple[int, int]:
        """What is made small: the objective, then the other one."""
        both = (self.time.latency, self.time.stage)
        return both if objective is Objective.LATENCY else both[::-1]


@dataclass(frozen=True)
class Layout:
    """How atoms are dealt out."""

    order: tuple[Device, ...]
    """The accelerators, the first to be filled first."""
    streams: bool = True
    """Whether anything is streamed. If so each kind's modes are spread evenly; otherwise residents stand in front: fewer cuts."""
    in_turns: bool = False
    """Whether the accelerators take turns block by block, rather than hold one run each."""


@dataclass(frozen=True)
class Deal:
    """Homes for all atoms, and the atoms that the CPU is to compute."""

    homes: tuple[Device, ...]
    in_place: frozenset[int]
    unplaced: Mapping[int, int]
    """Residents by kind that found no room on an accelerator and went down."""


def judge(problem: Problem, costs: PassCosts, homes: Sequence[Device], in_place: frozenset[int], objective: Objective) -> Candidate | None:
    """The better of two slots and one for these homes; None where neither stays within every budget."""
    best: Candidate | None = None
    for most_slots in (2, 1):
        streaming = streamed(problem, homes, in_place, most_slots=most_slots)
        if is_within_budgets(problem, homes, streaming):
            time = pass_time(costs, homes, streaming)
            found = None if time is None else Candidate(Solution(tuple(homes), streaming), time)
            if found is not None and (best is None or found.key(objective) < best.key(objective)):
                best = found
        if not streaming.slots:
            break
    return best


@dataclass(frozen=True)
class Reserve:
    """Bytes to keep free on each device while homes are chosen."""

    fixed: Mapping[Device, int]
    """Whatever lives where: slots, the CPU's activations."""
    whole: Mapping[Device, int]
    """With what goes along with the atoms that do not compute where they live, or compute on the CPU: buffers, the workload's share."""

    def larger(self, other: Reserve) -> Reserve:
        """Enough for both."""
        return Reserve(_larger(self.fixed, other.fixed), _larger(self.whole, other.whole))


def _larger(one: Mapping[Device, int], other: Mapping[Device, int]) -> dict[Device, int]:
    return {device: max(one.get(device, 0), other.get(device, 0)) for device in {**one, **other}}


def reserve_of(problem: Problem, homes: Sequence[Device], streaming: Streaming) -> Reserve:
    """What a placement that was tried would have needed to be kept free."""
    loads = problem.loads
    fixed = {device: slots.nbytes for device, slots in streaming.slots.items() if device in streaming.needs}
    if CPU in streaming.needs:
        fixed[CPU] = fixed.get(CPU, 0) + problem.activation_bytes
    whole = dict(streaming.needs)
    stays = sum(
        loads.run[at] + loads.buffers[at]
        for at, (home, device) in enumerate(zip(homes, streaming.executes, strict=True))
        if home == device == CPU
    )
    if stays:
        whole[CPU] = whole.get(CPU, 0) + stays
    return Reserve(fixed, whole)


def counts_of(problem: Problem, fluid: Fluid) -> Counts:
    """Whole numbers for the fluid shares of the atoms that are not pinned: residents rounded down, the rest by largest remainder."""
    free = Counter(fluid.kind_of[at] for unit in problem.units if unit.pin is None for at in unit.members)
    counts: Counts = {}
    for kind, many in free.items():
        shares: dict[str, float] = {}
        for mode, share in fluid.shares.get(kind, {}).items():
            word = word_of(*mode)
            shares[word] = shares.get(word, 0.0) + share
        if not shares:
            counts[kind] = {RESIDENT: many}
            continue
        whole = {word: int(many * shares[word] + 1e-6) for word in WORDS if word in shares}
        remainder = {word: whole[word] - many * share for word, share in shares.items() if word != RESIDENT}
        for word in (sorted(remainder, key=remainder.__getitem__) or [RESIDENT]) * many:
            if sum(whole.values()) >= many:
                break
            whole[word] += 1
        counts[kind] = whole
    return counts


def word_of(home: Device, executes_on: Device) -> str:
    """How an atom with this home and executing device is served."""
    if home.is_accelerator:
        return RESIDENT
    if home == CPU:
        return IN_PLACE if executes_on == CPU else STREAM
    return DISK_IN_PLACE if executes_on == CPU else DISK_STREAM


def deal_out(
    problem: Problem,
    kind_of: Sequence[int],
    counts: Counts,
    layout: Layout,
    *,
    reserve: Mapping[Device, int],
    prefers_cpu: frozenset[int],
) -> Deal | None:
    """Place every unit by these counts; None where cpu and disk have no room for what goes down.

    `prefers_cpu` are the atoms that the CPU computes sooner than they are copied: what a unit's other members do when it goes down.
    """
    rooms = _Rooms(problem, reserve, layout)
    words = _dealt(problem, kind_of, counts, evenly=layout.streams)
    down = STREAM if layout.streams else IN_PLACE
    unplaced: dict[int, int] = {}
    in_place = {at for at, frozen in enumerate(problem.loads.frozen) if not frozen}
    homes: dict[int, Device] = {}
    for number, unit in enumerate(problem.units):
        heaviest = max(unit.members, key=lambda at: (problem.loads.slot[at], -at))
        word = words.get(heaviest, down)
        home: Device | None = unit.pin
        if home is None and word == RESIDENT:
            home = rooms.on_accelerator(number)
            if home is None:
                unplaced[kind_of[heaviest]] = unplaced.get(kind_of[heaviest], 0) + 1
                word = down
        if home is None:
            home = rooms.below(number, disk_first=word in {DISK_STREAM, DISK_IN_PLACE})
            if home is None:
                return None
        homes[number] = home
        if not home.is_accelerator:
            own = heaviest if unit.pin is None else -1
            in_place |= {at for at in unit.members if (word in {IN_PLACE, DISK_IN_PLACE} if at == own else at in prefers_cpu)}
    placed = {at: homes[number] for number, unit in enumerate(problem.units) for at in unit.members}
    return Deal(tuple(placed[at] for at in range(len(problem.atoms))), frozenset(in_place), unplaced)


def _dealt(problem: Problem, kind_of: Sequence[int], counts: Counts, *, evenly: bool) -> dict[int, str]:
    """A mode for every atom that is not pinned: each kind's modes spread evenly along the order, or one after the other."""
    free = sorted(at for unit in problem.units if unit.pin is None for at in unit.members)
    total = {kind: sum(modes.values()) for kind, modes in counts.items()}
    dealt: dict[int, dict[str, int]] = {kind: dict.fromkeys(modes, 0) for kind, modes in counts.items()}
    seen: Counter[int] = Counter()
    found = {}
    for at in free:
        kind = kind_of[at]
        seen[kind] += 1
        used, modes = dealt[kind], counts[kind]
        owed = {word: seen[kind] * many - used[word] * total[kind] for word, many in modes.items() if used[word] < many}
        word = max(owed, key=owed.__getitem__) if evenly else min(owed, key=WORDS.index)
        used[word] += 1
        found[at] = word
    return found


class _Rooms:
    """What is left on each device while units are dealt out; a class because every step takes from the same rooms."""

    def __init__(self, problem: Problem, reserve: Mapping[Device, int], layout: Layout) -> None:
        self.problem = problem
        self.in_turns = layout.in_turns
        self.order = layout.order
        self.left = {budget.device: problem.limit(budget.device) - reserve.get(budget.device, 0) for budget in problem.budgets}
        for number, unit in enumerate(problem.units):
            if unit.pin is not None:
                self.left[unit.pin] -= self._bytes(number, unit.pin)
        self.whole = {device: max(1, self.left[device]) for device in self.left}
        self.now = 0

    def _bytes(self, number: int, device: Device) -> int:
        if device.is_accelerator:
            return self.problem.resident_bytes[number]
        return self.problem.lower_bytes[number]

    def _take(self, number: int, device: Device) -> bool:
        nbytes = self._bytes(number, device)
        if device in self.problem.units[number].barred or nbytes > self.left[device]:
            return False
        self.left[device] -= nbytes
        return True

    def on_accelerator(self, number: int) -> Device | None:
        """The device whose turn it is; in runs the one being filled, or a later one, which then is the one being filled."""
        if self.in_turns:
            emptiest = sorted(self.order, key=lambda device: -self.left[device] / self.whole[device])
            return next((device for device in emptiest if self._take(number, device)), None)
        for at in range(self.now, len(self.order)):
            if self._take(number, self.order[at]):
                self.now = at
                return self.order[at]
        return None

    def below(self, number: int, *, disk_first: bool) -> Device | None:
        """The tier that is wished for if it has room, else the other; an accelerator with a gap before giving up."""
        tiers = (DISK, CPU) if disk_first else (CPU, DISK)
        places = [tier for tier in tiers if tier in self.left]
        return next((device for device in (*places, *self.order) if self._take(number, device)), None)
