"""Why a module lives where it does.

What it weighs, what was left when it was placed, what limits it, what a little more would change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devmap.config.model.placement_config import MachineProfile
from devmap.config.values.size import Bytes, Percent
from devmap.config.values.strategy import Strategy
from devmap.errors import ResolutionError, UsageError
from devmap.inventory.dtypes import run_dtype, storage_bytes
from devmap.plan.model import Charge
from devmap.planning.placement.solve import solve
from devmap.planning.problem.budgets import budgets_of
from devmap.planning.problem.model import Overflow
from devmap.planning.resolve import problem_of, resolve
from devmap.planning.stages.cluster import is_cluster
from devmap.planning.turns import turn_around
from devmap.planning.why.deciding_factors import (
    BytesLeft,
    DecidingFactor,
    SolvedCapacity,
    deciding_factors,
    left_before,
)
from devmap_validators.checks.suggestion import explain_miss, near_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.planning.problem.model import PlacementProblem
    from devmap.planning.resolve import Question

__all__ = ["ExplainedPart", "Explanation", "WithMore", "why"]

ONE_MORE = 1_000_000_000
"""Bytes that each device gets more, one after the other."""
_MOST_PARTS = 8


@dataclass(frozen=True, slots=True)
class ExplainedPart:
    """Neighbouring atoms of what was asked about that live and run on the same devices."""

    first: str
    last: str
    """Equal to `first` for a single atom."""
    home: Device
    executes_on: Device
    nbytes: int
    left: tuple[BytesLeft, ...] = ()
    """What each device had left when the first of them was to be placed."""
    factors: tuple[DecidingFactor, ...] = ()
    """What decided about the first of them, the hardest first."""


@dataclass(frozen=True, slots=True)
class WithMore:
    """What a plan with more memory on one device would look like; that plan was made."""

    device: Device
    more_bytes: int
    fits: bool
    parts: tuple[ExplainedPart, ...] = ()
    """Of what was asked about; without what was left and what decided."""
    moves: bool = False
    """Whether what was asked about lives or runs elsewhere then."""
    others_moved: int = 0
    """How many other atoms do."""
    streamed_bytes: int = 0
    """Of the whole model, in one pass."""


@dataclass(frozen=True)
class Explanation:
    """The answer about one module or tensor. All sizes in bytes at the run dtype."""

    path: str
    class_name: str
    """Empty for a tensor."""
    placed_with: str
    """The module that it is placed with as a whole; empty where it is placed by itself or is spread over
    several."""
    placed_class: str
    weight_bytes: int
    """Parameters and buffers, a tied tensor once."""
    buffer_bytes: int
    charges: tuple[Charge, ...]
    """What the workload keeps for it, or for what it is placed with."""
    strategy: str
    fits: bool
    """Whether the config has a plan."""
    parts: tuple[ExplainedPart, ...] = ()
    more_parts: int = 0
    """Parts past the first few, which are left out of `parts`."""
    with_more: tuple[WithMore, ...] = ()
    streamed_bytes: int = 0
    """Of the whole model, in one pass."""
    problem: str = ""
    """Why there is no plan."""
    homeless: bool = False
    """Whether it is among what found no place."""
    left: tuple[BytesLeft, ...] = ()
    """Without a plan: what each device had left for it at the end."""
    changes: tuple[str, ...] = ()
    """Without a plan: the cheapest changes that fit, each tried."""


def why(
    config: PlacementConfig,
    inventory: Inventory,
    path: str,
    machine: MachineProfile | None = None,
    *,
    more_bytes: int = ONE_MORE,
) -> Explanation:
    """Explain where a module or tensor is placed, or why nothing fits.

    Plans once as the config stands, and once for each device with `more_bytes` more.

    Raises:
        UsageError: when the model has no such module or tensor; says which one may be meant.
        ResolutionError: when constraints contradict each other or the budgets are unknown.
        DeviceMapError: when a manual map does not fit the model.
    """
    if path not in inventory.modules and path not in inventory.tensors:
        near = near_path(path, inventory.index)
        hint = f"did you mean '{near}'?" if near else explain_miss(path, inventory.index)
        raise UsageError(f"'{path}' is not a module or tensor of the model", help=hint)
    if is_cluster(config, machine):
        raise UsageError(
            f"'{path}' is in a plan over several nodes, and --why explains plans for one machine",
            help="`devmap plan` says why the stages are as they are; `--format json` has the stage of each",
        )
    config, inventory = turn_around(config, inventory, path)
    question = problem_of(config, inventory, machine)
    asked = _covered(question.problem, path)
    about = _about(question, path, asked)
    try:
        plan = resolve(config, inventory, machine=machine)
    except ResolutionError as error:
        return _without_plan(
            about,
            question,
            asked,
            error,
            tuple(_with_more(config, inventory, machine, question, asked, None, more_bytes)),
        )
    parts = list(_parts(question.problem, _layout(plan), asked))
    rooms = SolvedCapacity.of(question.problem, plan)
    explained = [
        replace(
            part,
            left=left_before(rooms, start),
            factors=tuple(deciding_factors(question, plan, rooms, start)),
        )
        for start, part in parts[:_MOST_PARTS]
    ]
    return replace(
        about,
        parts=tuple(explained),
        more_parts=max(0, len(parts) - _MOST_PARTS),
        streamed_bytes=_streamed(plan),
        with_more=tuple(_with_more(config, inventory, machine, question, asked, plan, more_bytes)),
    )


def _covered(problem: PlacementProblem, path: str) -> list[int]:
    """Return the atoms at or below a path, or the one around it."""
    below = [
        at
        for at, atom in enumerate(problem.atoms)
        if not path or atom.path == path or atom.path.startswith(f"{path}.")
    ]
    if below:
        return below
    return [at for at, atom in enumerate(problem.atoms) if not atom.path or path.startswith(f"{atom.path}.")]


def _about(question: Question, path: str, asked: Sequence[int]) -> Explanation:
    inventory, atoms = question.inventory, question.problem.atoms
    around = atoms[asked[0]] if len(asked) == 1 and atoms[asked[0]].path != path else None
    own = [
        name
        for at in asked
        for name in atoms[at].tensors
        if not path or name == path or name.startswith(f"{path}.")
    ]
    owner, sizes = inventory.owner, dict[str, int]()
    for name in own:
        tensor = inventory.tensors[name]
        sizes.setdefault(
            owner.get(name, name),
            storage_bytes(
                tensor.shape, run_dtype(tensor.dtype, question.config.model.dtype, kind=tensor.kind)
            ),
        )
    charges = [(kind, sum(kind.by_atom.get(at, 0) for at in asked)) for kind in question.workload.by_kind]
    return Explanation(
        path=path,
        class_name=inventory.modules.get(path, ""),
        placed_with=around.path if around is not None else "",
        placed_class=around.class_name if around is not None else "",
        weight_bytes=sum(sizes.values()),
        buffer_bytes=sum(size for name, size in sizes.items() if inventory.tensors[name].kind == "buffer"),
        charges=tuple(Charge(kind.what, nbytes, kind.arithmetic) for kind, nbytes in charges if nbytes),
        strategy=question.strategy,
        fits=True,
    )


def _without_plan(
    about: Explanation,
    question: Question,
    asked: Sequence[int],
    error: ResolutionError,
    with_more: tuple[WithMore, ...],
) -> Explanation:
    found = solve(question.problem)
    homeless = False
    left: tuple[BytesLeft, ...] = ()
    if isinstance(found, Overflow):
        at = next((at for at, unit in enumerate(question.problem.units) if asked[0] in unit.members), 0)
        unit, needed = question.problem.units[at], question.problem.resident_bytes[at]
        homeless = any(
            member in asked for place in found.units for member in question.problem.units[place].members
        )
        left = tuple(
            BytesLeft(device, max(0, free), needed, fits=needed <= free and device not in unit.excluded)
            for device, free in sorted(found.free_bytes.items())
        )
    return replace(
        about,
        fits=False,
        problem=error.message,
        changes=error.changes,
        homeless=homeless,
        left=left,
        with_more=with_more,
    )


@dataclass(frozen=True)
class _AtomPlaces:
    """Where each atom lives and runs."""

    places: tuple[tuple[Device, Device], ...]
    streamed_bytes: int


def _layout(plan: Plan) -> _AtomPlaces:
    return _AtomPlaces(tuple((one.home, one.executes_on) for one in plan.placements), _streamed(plan))


def _parts(
    problem: PlacementProblem, layout: _AtomPlaces, asked: Sequence[int]
) -> Iterator[tuple[int, ExplainedPart]]:
    """Runs of the atoms asked about, each with the place of its first."""
    start = 0
    while start < len(asked):
        end = start + 1
        place = layout.places[asked[start]]
        while end < len(asked) and layout.places[asked[end]] == place:
            end += 1
        nbytes = sum(problem.loads.weight[at] for at in asked[start:end])
        first, last = problem.atoms[asked[start]].path, problem.atoms[asked[end - 1]].path
        yield asked[start], ExplainedPart(first, last, *place, nbytes)
        start = end


def _streamed(plan: Plan) -> int:
    return sum(placement.home_bytes for placement in plan.streamed)


def _with_more(
    config: PlacementConfig,
    inventory: Inventory,
    machine: MachineProfile | None,
    question: Question,
    asked: Sequence[int],
    plan: Plan | None,
    more_bytes: int,
) -> Iterator[WithMore]:
    """Yield the plans with more memory on each device that has a limit."""
    before = _layout(plan).places if plan is not None else None
    inside = set(asked)
    for budget in question.problem.budgets:
        if budget.capacity is None:
            continue
        device = budget.device
        changed, larger = _raised(config, machine, device, budget.capacity + more_bytes)
        other = _planned(changed, inventory, larger, question)
        if other is None:
            yield WithMore(device, more_bytes, fits=False)
            continue
        moved = [] if before is None else [at for at, place in enumerate(other.places) if place != before[at]]
        mine = sum(1 for at in moved if at in inside)
        parts = tuple(part for _, part in _parts(question.problem, other, asked))
        yield WithMore(
            device, more_bytes, True, parts, mine > 0 or plan is None, len(moved) - mine, other.streamed_bytes
        )


def _planned(
    config: PlacementConfig, inventory: Inventory, machine: MachineProfile | None, question: Question
) -> _AtomPlaces | None:
    """Return the same question with other budgets, planned; None where nothing fits.

    `fastest` plans anew, since more than budgets hangs on the machine there; for the rest the problem stays
    but for its budgets.
    """
    if Strategy.FASTEST in config.device_map.values():
        try:
            return _layout(resolve(config, inventory, machine=machine))
        except ResolutionError:
            return None
    problem = replace(question.problem, budgets=budgets_of(config, machine))
    found = solve(problem)
    if isinstance(found, Overflow):
        return None
    places = tuple(zip(found.homes, found.streaming.execution_devices, strict=True))
    moving = (at for at, (home, execution_devices) in enumerate(places) if home != execution_devices)
    return _AtomPlaces(places, sum(problem.loads.weight[at] - problem.loads.buffers[at] for at in moving))


def _raised(
    config: PlacementConfig, machine: MachineProfile | None, device: Device, capacity: int
) -> tuple[PlacementConfig, MachineProfile | None]:
    """Return the config and the machine with another capacity for one device, whoever of the two says it."""
    amount = config.max_memory[device] if config.max_memory is not None else None
    if config.max_memory is not None and not isinstance(amount, Percent):
        return config.model_copy(
            update={"max_memory": {**config.max_memory, device: Bytes(capacity)}}
        ), machine
    assert machine is not None, "the capacity came from it"
    memory = amount.total_of(capacity) if isinstance(amount, Percent) else capacity
    known = machine.devices[device].model_copy(update={"memory": Bytes(memory)})
    return config, MachineProfile.model_construct(
        name=machine.name, devices={**machine.devices, device: known}
    )
