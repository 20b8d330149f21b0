"""What decides where an atom goes.

What each device had left when its turn came, and the constraint, budget or reserve that decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from devmap.config.values.device import CPU, DISK, Device, device_name
from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import Strategy
from devmap.inventory.patterns import expand_keys
from devmap.planning.problem.model import NO_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.plan.model import Plan
    from devmap.planning.problem.model import PlacementProblem
    from devmap.planning.problem.units import PlacementUnit
    from devmap.planning.resolve import Question

__all__ = ["BytesLeft", "DecidingFactor", "FactorKind", "SolvedCapacity", "deciding_factors", "left_before"]

FactorKind = Literal[
    "pin",
    "no-split",
    "tie",
    "same-device",
    "forbid",
    "training",
    "budget",
    "headroom",
    "reserve",
    "balance",
    "time",
    "order",
    "stream",
    "in-place",
]


@dataclass(frozen=True, slots=True)
class DecidingFactor:
    """One thing that decided, in a sentence."""

    kind: FactorKind
    device: Device | None
    """The device that it is about, if it is about one."""
    sentence: str


@dataclass(frozen=True, slots=True)
class BytesLeft:
    """What a device had left when something was to be placed, and what that takes there. Bytes."""

    device: Device
    left_bytes: int | None
    """None for a disk without a limit."""
    needed_bytes: int
    fits: bool
    """Whether it would have fitted there, and may lie there."""


@dataclass(frozen=True)
class SolvedCapacity:
    """A solved problem, as far as what is left on its devices goes."""

    problem: PlacementProblem
    unit_of: tuple[int, ...]
    """For each atom its unit."""
    homes: tuple[Device, ...]
    """For each unit."""
    on_cpu: tuple[int, ...]
    """Bytes of each unit on cpu."""
    kept: Mapping[Device, int]
    """Bytes that each device keeps free to stream and compute, beyond what lives there."""

    @classmethod
    def of(cls, problem: PlacementProblem, plan: Plan) -> SolvedCapacity:
        """Return the rooms of a plan. Linear in atoms."""
        unit_of = {member: at for at, unit in enumerate(problem.units) for member in unit.members}
        kept: dict[Device, int] = {}
        for use in plan.devices:
            kept[use.device] = sum(
                charge.nbytes for charge in use.charges if charge.what in {"slots", "buffers"}
            )
        for at, placement in enumerate(plan.placements):
            if placement.is_streamed:
                kept[placement.executes_on] = kept.get(placement.executes_on, 0) + problem.loads.run[at]
        if any(placement.executes_on == CPU for placement in plan.placements):
            kept[CPU] = kept.get(CPU, 0) + problem.activation_bytes
        in_place = frozenset(
            at for at, one in enumerate(plan.placements) if one.home == one.executes_on == CPU
        )
        homes = tuple(plan.placements[unit.members[0]].home for unit in problem.units)
        return cls(
            problem,
            tuple(unit_of[at] for at in range(len(problem.atoms))),
            homes,
            problem.on_cpu(in_place),
            kept,
        )

    def needed(self, unit: int, device: Device) -> int:
        """Return the bytes of a unit on a device."""
        if device.is_accelerator:
            return self.problem.resident_bytes[unit]
        return self.on_cpu[unit] if device == CPU else self.problem.lower_bytes[unit]

    def left(self, unit: int, device: Device) -> int:
        """Return the bytes that a device had left when a unit's turn came.

        Pinned units stand there already, and all before it in the order.
        """
        limit = self.problem.limit(device) - self.kept.get(device, 0)
        units = self.problem.units
        before = (
            at
            for at, home in enumerate(self.homes)
            if home == device and at != unit and (at < unit or units[at].pin is not None)
        )
        return limit - sum(self.needed(at, device) for at in before)


def left_before(rooms: SolvedCapacity, atom: int) -> tuple[BytesLeft, ...]:
    """Return what each offered device had left when an atom was to be placed."""
    unit = rooms.unit_of[atom]
    excluded = rooms.problem.units[unit].excluded
    found = []
    for budget in rooms.problem.budgets:
        left, needed = rooms.left(unit, budget.device), rooms.needed(unit, budget.device)
        unlimited = rooms.problem.limit(budget.device) >= NO_LIMIT
        found.append(
            BytesLeft(
                budget.device,
                None if unlimited else max(0, left),
                needed,
                needed <= left and budget.device not in excluded,
            )
        )
    return tuple(found)


def deciding_factors(
    question: Question, plan: Plan, rooms: SolvedCapacity, atom: int
) -> Iterator[DecidingFactor]:
    """Yield what decided about an atom, constraints first."""
    unit = question.problem.units[rooms.unit_of[atom]]
    yield from _pin(question, unit, atom)
    yield from _whole(question, plan, atom)
    yield from _joined(question, unit, atom)
    if unit.pin is None:
        yield from _devices(question, rooms, atom)
    yield from _execution(question, plan, atom)


def _pin(question: Question, unit: PlacementUnit, atom: int) -> Iterator[DecidingFactor]:
    if unit.pin is None:
        return
    expansion = expand_keys(question.config.device_map, question.inventory.index)
    atoms = question.problem.atoms
    for at in (atom, *unit.members):
        keys = (expansion.winner(name) for name in (atoms[at].path, atoms[at].tensors[0]))
        key = next(
            (key for key in keys if key is not None and question.config.device_map[key] == unit.pin), None
        )
        if key is not None:
            what = "it" if at == atom else f"'{atoms[at].path}', which it shares a device with,"
            where = f"device_map['{key}']" if key else "device_map"
            yield DecidingFactor("pin", unit.pin, f"{where} pins {what} to {device_name(unit.pin)}.")
            return


def _whole(question: Question, plan: Plan, atom: int) -> Iterator[DecidingFactor]:
    one = question.problem.atoms[atom]
    if one.class_name in plan.no_split_module_classes and len(one.tensors) > 1:
        yield DecidingFactor(
            "no-split",
            None,
            f"'{one.path}' is a {one.class_name}, which may not be split: it goes whole to one device.",
        )


def _joined(question: Question, unit: PlacementUnit, atom: int) -> Iterator[DecidingFactor]:
    if len(unit.members) == 1:
        return
    atoms, config = question.problem.atoms, question.config
    mine = set(atoms[atom].tensors)
    here = {name for at in unit.members for name in atoms[at].tensors}
    for group in question.inventory.ties:
        if mine & set(group) and (len(here & set(group)) > len(mine & set(group))):
            names = "' = '".join(group[:4])
            yield DecidingFactor("tie", None, f"Tied weights share a device: '{names}'.")
    inside = [atoms[at].path for at in unit.members]
    for number, keys in enumerate(config.same_device):
        listed = " and ".join(f"'{key}'" for key in keys)
        named = [path for key in keys for path in question.inventory.index.match(key)]
        if any(
            path == name or path.startswith(f"{name}.") or name.startswith(f"{path}.")
            for path in inside
            for name in named
        ):
            yield DecidingFactor("same-device", None, f"same_device[{number}] keeps {listed} on one device.")


def _devices(question: Question, rooms: SolvedCapacity, atom: int) -> Iterator[DecidingFactor]:
    """Why it is not on each of the devices that come before its own."""
    at = rooms.unit_of[atom]
    unit, home = question.problem.units[at], rooms.homes[at]
    for budget in question.problem.budgets:
        if budget.device in unit.excluded:
            trained = budget.device == DISK and any(
                not question.problem.loads.frozen[member] for member in unit.members
            )
            forbidden = any(device == budget.device for device in question.config.forbid)
            if trained and not forbidden:
                yield DecidingFactor(
                    "training", DISK, "It is trained, and changes to weights on disk are not written back."
                )
            else:
                yield DecidingFactor(
                    "forbid",
                    budget.device,
                    f"forbid.{budget.device} keeps it off {device_name(budget.device)}.",
                )
        elif budget.device < home:
            yield _why_not(question, rooms, at, budget.device)


def _why_not(question: Question, rooms: SolvedCapacity, at: int, device: Device) -> DecidingFactor:
    """Why a unit is not on one device that comes before its own."""
    left, needed = rooms.left(at, device), rooms.needed(at, device)
    if needed <= left:
        return _passed_over(rooms, at, device)
    budget = next(one for one in question.problem.budgets if one.device == device)
    name, limit, kept = device_name(device), rooms.problem.limit(device), rooms.kept.get(device, 0)
    short = f"{name} had {_size(left)} left, it takes {_size(needed)}: {_size(needed - max(0, left))} short"
    if needed <= left + kept:
        return DecidingFactor(
            "reserve", device, f"{short}. The room kept there for streaming ({_size(kept)}) is the limit."
        )
    if needed <= left + budget.headroom_bytes:
        return DecidingFactor(
            "headroom", device, f"{short}. The headroom of {_size(budget.headroom_bytes)} is the limit."
        )
    if needed > limit:
        return DecidingFactor(
            "budget", device, f"{name} may hold {_size(limit)} in all, and it takes {_size(needed)}."
        )
    return DecidingFactor(
        "budget", device, f"{short}. Its budget of {_size(budget.capacity or 0)} is the limit."
    )


def _passed_over(rooms: SolvedCapacity, at: int, device: Device) -> DecidingFactor:
    """Why a unit is not on a device that had room for it."""
    strategy, name = rooms.problem.units[at].strategy, device_name(device)
    if strategy is Strategy.FASTEST:
        return DecidingFactor(
            "time", device, f"{name} had room for it; a pass is predicted to take no less with it there."
        )
    if rooms.homes[at].is_accelerator and strategy in {Strategy.BALANCED, Strategy.BALANCED_LOW_0}:
        aim = (
            "the largest load is as small as can be"
            if strategy is Strategy.BALANCED
            else "the first device holds as little as can be"
        )
        return DecidingFactor(
            "balance", device, f"{name} had room for it; {strategy} ended its run before, so that {aim}."
        )
    placed = [
        home
        for home, unit in zip(rooms.homes, rooms.problem.units, strict=True)
        if unit.pin is None and home.is_accelerator
    ]
    if placed != sorted(placed):
        return DecidingFactor(
            "order",
            device,
            f"{name} had room for it, but nothing fits in the model's order: blocks are packed as they fit.",
        )
    return DecidingFactor(
        "order",
        device,
        f"{name} had room for it, but a later device had taken over: filling goes forward only.",
    )


def _execution(question: Question, plan: Plan, atom: int) -> Iterator[DecidingFactor]:
    """Yield where a spilled atom runs, and why there."""
    placement = plan.placements[atom]
    if placement.home.is_accelerator or not question.problem.accelerators:
        return
    if placement.executes_on.is_accelerator:
        before = next((one for one in reversed(plan.placements[:atom]) if one.home.is_accelerator), None)
        near = f", where '{before.path}' before it lives" if before is not None else ""
        use = plan.use_of(placement.executes_on)
        slots = (
            next((charge.arithmetic for charge in use.charges if charge.what == "slots"), "")
            if use is not None
            else ""
        )
        sentence = (
            f"It is copied to {device_name(placement.executes_on)} for its "
            f"forward{near}; room there: {slots}."
        )
        yield DecidingFactor("stream", placement.executes_on, sentence)
    elif not question.problem.loads.frozen[atom]:
        yield DecidingFactor(
            "in-place", CPU, "The CPU computes it where it lies: trained weights are not streamed."
        )
    elif Strategy.FASTEST in question.config.device_map.values():
        yield DecidingFactor(
            "in-place",
            CPU,
            "The CPU computes it where it lies: a pass is predicted to take less time so than with a copy.",
        )
    else:
        slot = question.problem.loads.slot[atom]
        yield DecidingFactor(
            "in-place",
            CPU,
            f"The CPU computes it where it lies: no accelerator has a slot of {_size(slot)} for it.",
        )


def _size(nbytes: int) -> str:
    return format_bytes(max(0, nbytes))
