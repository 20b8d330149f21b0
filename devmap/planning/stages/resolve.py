"""A config for several nodes resolved to a proven plan.

The line of modules is split into one contiguous stage for each accelerator; then each stage is planned like a
model of its own on its node, with that accelerator and what the stages before it left of the node's host
memory and disk. So a stage streams from its own node alone. A tied tensor whose names are in two stages lies
in both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING

from devmap.config.values.device import DISK, Device, Tier, device_name
from devmap.config.values.strategy import Objective, Strategy
from devmap.errors import DevmapError, ResolutionError
from devmap.inventory.atoms import atoms as atoms_of
from devmap.inventory.atoms import tensor_sizes
from devmap.inventory.patterns import expand_keys
from devmap.plan.fingerprint import config_fingerprint
from devmap.plan.fold import covers
from devmap.planning.fastest.costs import costs_of, missing_rates
from devmap.planning.fastest.search import Fastest, solve_fastest
from devmap.planning.placement.solve import solve
from devmap.planning.problem.budgets import budgets_of
from devmap.planning.problem.constraints import MapProblem, constraints_of
from devmap.planning.problem.model import NO_LIMIT, Overflow, PlacementProblem, Slots, Solution, Streaming
from devmap.planning.problem.stage_charges import stage_charges
from devmap.planning.problem.units import AtomLoads, PlacementUnit, SingleUnits, contract, weigh
from devmap.planning.result.assembly import plan_of
from devmap.planning.result.verify import prove
from devmap.planning.stages.cluster import cluster_of, on_every_node
from devmap.planning.stages.infeasible import no_split
from devmap.planning.stages.order import execution_order
from devmap.planning.stages.reasons import reasons_of
from devmap.planning.stages.split import Line, split_evenly, split_in_order
from devmap.planning.stages.timing import node_machine, pipeline_of, step_shape, transfer_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.yaml.faults import DocumentPath
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.planning.problem.budgets import Budget
    from devmap.planning.problem.constraints import Constraints
    from devmap.planning.problem.stage_charges import StageCharges
    from devmap.planning.problem.workload import WorkloadCharges
    from devmap.planning.stages.cluster import Cluster

__all__ = ["resolve_stages"]

_MOST_TRIES = 32
"""Times that the model is split again with less room on an accelerator whose stage could not be planned."""


@dataclass(frozen=True)
class _Question:
    """A config, a model and a cluster, prepared."""

    config: PlacementConfig
    """With every key written out for each node."""
    inventory: Inventory
    cluster: Cluster
    strategy: Strategy | None
    """None where the map names a device for everything."""
    atoms: tuple[Atom, ...]
    order: tuple[int, ...]
    """Numbers of atoms in the order in which they run."""
    charges: StageCharges
    budgets: Mapping[Device, Budget]
    constraints: Constraints


def resolve_stages(
    config: PlacementConfig, inventory: Inventory, *, machine: MachineProfile | None = None
) -> Plan:
    """Return the plan of a config for several nodes, proven before it is returned.

    `machine` has the devices of all nodes, each under its node's name.

    Raises:
        ResolutionError: no split fits, with the shortfall in bytes; the nodes, `parallel` or the map ask for
            what cannot be.
        DeviceMapError: a manual map does not fit the model; lists every problem.
    """
    question = _question(config, inventory, cluster_of(config, machine))
    plan, line = _attempt(config, question)
    if plan is not None:
        return plan
    raise no_split(
        config,
        line,
        loads=_largest_loads(question),
        limits=_limits(question),
        stages=question.cluster.stages,
        atoms=[question.atoms[at].path for at in question.order],
        fits=lambda changed: _fits(changed, inventory, machine),
    )


def _attempt(config: PlacementConfig, question: _Question) -> tuple[Plan | None, Line]:
    """Return the plan, None where no split fits, and the line that was split last.

    Raises:
        ResolutionError: the model has fewer modules than there are stages.
    """
    stages = len(question.cluster.stages)
    if len(question.atoms) < stages:
        raise ResolutionError(
            f"the model has {len(question.atoms)} modules that may be placed apart, and there are "
            f"{stages} stages",
            help=f"offer at most {len(question.atoms)} accelerators",
        )
    reserve = [0] * stages
    line = _line(question, reserve)
    for _ in range(_MOST_TRIES):
        ends = split_in_order(line) if question.strategy == Strategy.SEQUENTIAL else split_evenly(line)
        if ends is None:
            break
        members = _members(question, ends)
        workload = question.charges.settled(members)
        problem = _problem(question, members, workload)
        parts, failed = _solved(question, problem, members)
        if failed is None:
            return _plan(config, question, problem, workload, parts), line
        stage, missing = failed
        reserve[stage] += missing
        line = _line(question, reserve)
    return None, line


def _fits(config: PlacementConfig, inventory: Inventory, machine: MachineProfile | None) -> bool:
    """Return whether a config has a plan."""
    try:
        question = _question(config, inventory, cluster_of(config, machine))
        return _attempt(config, question)[0] is not None
    except DevmapError:
        return False


def _question(config: PlacementConfig, inventory: Inventory, cluster: Cluster) -> _Question:
    spread = on_every_node(config, cluster.machine)
    dtype = config.model.dtype
    atoms = atoms_of(inventory, no_split_module_classes=config.no_split_module_classes, dtype=dtype)
    charges = stage_charges(
        config.workload,
        inventory,
        atoms,
        cluster.parallel,
        stages=len(cluster.stages),
        dtype=dtype,
        step_tokens=step_shape(config, inventory, 1).tokens,
    )
    budgets = {budget.device: budget for budget in budgets_of(spread, cluster.machine)}
    offered = {*budgets, *(device.on(None) for device in budgets if not device.is_accelerator)}
    constraints = constraints_of(spread, inventory, atoms, offered, charges.whole.trained)
    question = _Question(
        spread,
        inventory,
        cluster,
        _strategy(config),
        atoms,
        execution_order(atoms, inventory),
        charges,
        budgets,
        constraints,
    )
    if question.strategy == Strategy.FASTEST:
        _check_rates(question)
    return question


def _strategy(config: PlacementConfig) -> Strategy | None:
    strategies = {target for target in config.device_map.values() if isinstance(target, Strategy)}
    if Strategy.BALANCED_LOW_0 in strategies:
        raise ResolutionError(
            "balanced_low_0 keeps device 0 of one machine light, and this config is for several nodes",
            help="write device_map: balanced, or pin fewer modules to the first stage by hand",
            path=("device_map",),
        )
    if len(strategies) > 1:
        raise ResolutionError(
            f"device_map asks for {' and '.join(sorted(strategies))}, and a pipeline is split by one",
            help="pin modules to devices and leave all the rest to one strategy",
            path=("device_map",),
        )
    return next(iter(strategies), None)


def _check_rates(question: _Question) -> None:
    """Check that `fastest` knows what it needs: rates of the devices, and of the network.

    Raises:
        ResolutionError: naming what is missing.
    """
    cluster = question.cluster
    missing: list[str] = []
    for stage, device in enumerate(cluster.stages):
        offered = [device.on(None), *(tier.on(None) for tier in question.budgets if tier.node == device.node)]
        offered = [one for one in offered if one == device.on(None) or not one.is_accelerator]
        lacking = missing_rates(node_machine(cluster, stage), offered)
        missing += [f"{rate} (node {device.node})" for rate in lacking]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ResolutionError(
            f"device_map: fastest needs the rates of every offered device: {', '.join(missing[:3])}{more}",
            help="name presets (nodes: {a: 8xh100}), or measure each node with `devmap doctor -o a.yaml` and "
            "name that file",
        )
    if any(transfer_seconds(cluster, stage, 0) is None for stage in range(len(cluster.stages) - 1)):
        raise ResolutionError(
            "device_map: fastest needs the bandwidth of the network between the nodes",
            help="add machine.network: {bandwidth: 50GB/s}, or place by balanced",
        )


# --- the split


def _line(question: _Question, reserve: Sequence[int]) -> Line:
    """Return the modules in running order as a line to be split, with `reserve` kept free on each device."""
    cluster = question.cluster
    fixed, saved = _loads_in_order(question)
    fixed_up_to, saved_up_to = [0, *accumulate(fixed)], [0, *accumulate(saved)]
    factors = [question.charges.saved(stage) for stage in range(len(cluster.stages))]
    limits = [limit - kept for limit, kept in zip(_limits(question), reserve, strict=True)]
    slots = _slot_bytes(question)

    def load(stage: int, start: int, end: int) -> int:
        return (
            fixed_up_to[end] - fixed_up_to[start] + factors[stage] * (saved_up_to[end] - saved_up_to[start])
        )

    def spilled(stage: int, start: int, end: int) -> int:
        nbytes = load(stage, start, end)
        return 0 if nbytes <= limits[stage] else max(1, nbytes - max(0, limits[stage] - slots))

    rooms = _lower_room(question)
    return Line(
        len(question.order),
        len(cluster.stages),
        load if question.strategy != Strategy.FASTEST else _time_of(question, spilled),
        spilled,
        [str(device.node) for device in cluster.stages],
        rooms,
        _barred(question),
        _glued(question),
    )


def _loads_in_order(question: _Question) -> tuple[list[int], list[int]]:
    """Return the bytes of each module on its accelerator, and of its saved activations for a microbatch.

    In running order. Tied tensors count with each of their names, since most ties are between the two ends of
    a model.
    """
    dtype = question.config.model.dtype
    atoms, inventory = question.atoms, question.inventory
    apart = {at: Device(Tier.ACCELERATOR, at) for at in range(len(atoms))} if inventory.ties else {}
    sizes = tensor_sizes(inventory, dtype)
    _, copies = contract(inventory, atoms, apart, {}, {}, (), sizes)
    weight, _, _ = weigh(inventory, atoms, copies, sizes, offload_buffers=question.config.offload.buffers)
    fixed, saved = list(weight), [0] * len(atoms)
    for charge in question.charges.whole.by_kind:
        if charge.what != "activations":
            for at, nbytes in charge.by_atom.items():
                fixed[at] += nbytes
    for charge in question.charges.micro.by_kind:
        if charge.what == "activations":
            for at, nbytes in charge.by_atom.items():
                saved[at] += nbytes
    return [fixed[at] for at in question.order], [saved[at] for at in question.order]


def _largest_loads(question: _Question) -> int:
    """Return the bytes of all stages together, with the fewest activations in flight."""
    fixed, saved = _loads_in_order(question)
    return sum(fixed) + sum(saved)


def _limits(question: _Question) -> list[int]:
    """Return what the modules of each stage may take of its accelerator."""
    found = []
    for stage, device in enumerate(question.cluster.stages):
        usable = question.budgets[device].usable_bytes
        kept = question.charges.activation_bytes + question.charges.beside(stage)
        found.append(max(0, (NO_LIMIT if usable is None else usable) - kept))
    return found


def _slot_bytes(question: _Question) -> int:
    """Return the room of two slots for the largest module that may be streamed."""
    frozen = question.charges.whole.trained
    return 2 * max((atom.nbytes for at, atom in enumerate(question.atoms) if at not in frozen), default=0)


def _lower_room(question: _Question) -> dict[str, int]:
    """Return the bytes of host memory and disk of each node."""
    found = dict.fromkeys(question.cluster.machine.nodes, 0)
    for device, budget in question.budgets.items():
        if not device.is_accelerator and device.node is not None:
            usable = NO_LIMIT if budget.usable_bytes is None else budget.usable_bytes
            found[device.node] += usable
    return found


def _time_of(question: _Question, spilled: Callable[[int, int, int], int]) -> Callable[[int, int, int], int]:
    """Return the time of a stage in femtoseconds: the larger of its compute and of what it streams."""
    cluster, config = question.cluster, question.config
    shape = step_shape(config, question.inventory, cluster.parallel.microbatches)
    known: dict[str, list[int]] = {}
    sums: list[list[int]] = []
    copies: list[float] = []
    empty = _plain_problem(question)
    for stage, device in enumerate(cluster.stages):
        profile = cluster.machine.devices[device]
        key = f"{profile.flops} {profile.memory_bandwidth}"
        if key not in known:
            own = device.on(None)
            budgets = (replace(question.budgets[device], device=own),)
            costs = costs_of(
                empty.with_budgets(budgets),
                question.inventory,
                node_machine(cluster, stage),
                shape,
                dtype=config.model.dtype,
            )
            each = costs.compute[own]
            known[key] = [0, *accumulate(each[at] for at in question.order)]
        sums.append(known[key])
        copies.append(1e15 / profile.host_to_device if profile.host_to_device else 0.0)

    def time(stage: int, start: int, end: int) -> int:
        computing = sums[stage][end] - sums[stage][start]
        return max(computing, int(spilled(stage, start, end) * copies[stage]))

    return time


def _plain_problem(question: _Question) -> PlacementProblem:
    nothing = (0,) * len(question.atoms)
    weight = tuple(atom.nbytes for atom in question.atoms)
    loads = AtomLoads(weight, nothing, weight, nothing, nothing, (True,) * len(question.atoms))
    return PlacementProblem(question.atoms, SingleUnits(len(question.atoms), Strategy.AUTO), loads, ())


def _barred(question: _Question) -> dict[int, frozenset[int]]:
    """Return for modules, by their place in running order, the stages that must not hold them.

    Raises:
        ResolutionError: a pin names a device without its node, or pins go back to an earlier stage (DM707).
    """
    stages = question.cluster.stages
    every = frozenset(range(len(stages)))
    pins, excluded = question.constraints.pins, question.constraints.excluded
    found: dict[int, frozenset[int]] = {}
    reached, before = 0, ""
    for place, at in enumerate(question.order):
        allowed = every
        pin = pins.get(at)
        if pin is not None and pin.is_accelerator:
            allowed = frozenset(stage for stage in every if stages[stage] == pin)
        elif pin is not None and pin.node is not None:
            allowed = frozenset(stage for stage in every if stages[stage].node == pin.node)
        if at in excluded:
            allowed -= {stage for stage in every if stages[stage] in excluded[at]}
        path = question.atoms[at].path
        if not allowed:
            raise ResolutionError(
                f"'{path}' may be in no stage", help="remove its pin, or what 'forbid' says of it"
            )
        if max(allowed) < reached:
            message = (
                f"'{path}' is pinned to {device_name(stages[max(allowed)])}, and '{before}', which runs "
                f"before it, to {device_name(stages[reached])}, a later stage"
            )
            raise ResolutionError(
                "the stages are not contiguous: pins send modules back to an earlier stage",
                help="let the pins follow the order in which the modules run",
                problems=[MapProblem("DM707", message, _key_of(question, path))],
            )
        if min(allowed) > reached:
            reached, before = min(allowed), path
        if allowed != every:
            found[place] = every - allowed
    return found


def _key_of(question: _Question, path: str) -> DocumentPath:
    """Return the key of the device map that decides for a module."""
    anchors = expand_keys(question.config.device_map, question.inventory.index).anchors
    key = covers(anchors, path)
    return ("device_map",) if key is None else ("device_map", key)


def _glued(question: _Question) -> frozenset[int]:
    """Return the places in running order that stay in the stage of the one before them, for `same_device`."""
    place_of = {at: place for place, at in enumerate(question.order)}
    found: set[int] = set()
    for group in question.constraints.together:
        places = sorted(place_of[at] for at in group)
        found.update(range(places[0] + 1, places[-1] + 1))
    return frozenset(found)


# --- the stages


def _members(question: _Question, ends: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the numbers of each stage's atoms, in the model's order."""
    starts = (0, *ends[:-1])
    return [tuple(sorted(question.order[start:end])) for start, end in zip(starts, ends, strict=True)]


def _problem(
    question: _Question, members: Sequence[Sequence[int]], workload: WorkloadCharges
) -> PlacementProblem:
    """Return the problem of the whole model, its ties taken apart where they are in two stages."""
    config, inventory, atoms = question.config, question.inventory, question.atoms
    pins = {at: question.cluster.stages[stage] for stage, own in enumerate(members) for at in own}
    sizes = tensor_sizes(inventory, config.model.dtype)
    units, copies = contract(inventory, atoms, pins, {}, {}, question.constraints.together, sizes)
    weight, buffers, slot = weigh(inventory, atoms, copies, sizes, offload_buffers=config.offload.buffers)
    loads = AtomLoads(
        weight=tuple(weight),
        buffers=tuple(buffers),
        slot=tuple(slot),
        held=workload.totals(len(atoms), follows_home=True),
        run=workload.totals(len(atoms), follows_home=False),
        frozen=tuple([at not in workload.trained for at in range(len(atoms))]),
    )
    budgets = tuple(question.budgets[device] for device in sorted(question.budgets))
    return PlacementProblem(atoms, units, loads, budgets, workload.activation_bytes, copies)


@dataclass(frozen=True)
class _Part:
    """One stage as it was planned on its node."""

    members: tuple[int, ...]
    problem: PlacementProblem
    solution: Solution


def _solved(
    question: _Question, whole: PlacementProblem, members: Sequence[tuple[int, ...]]
) -> tuple[list[_Part], tuple[int, int] | None]:
    """Return the stages planned one after another; with the first that could not be, and what it lacks."""
    left = {
        device: budget.usable_bytes
        for device, budget in question.budgets.items()
        if not device.is_accelerator
    }
    parts: list[_Part] = []
    for stage, own in enumerate(members):
        device = question.cluster.stages[stage]
        problem = _stage_problem(question, whole, stage, own, left)
        solution = _solve_stage(question, problem, stage)
        if isinstance(solution, Overflow):
            missing = sum(problem.resident_bytes[unit] for unit in solution.units[:1])
            return parts, (stage, max(missing, problem.limit(device.on(None)) // 50, 1))
        parts.append(_Part(own, problem, solution))
        taken = _taken_below(problem, solution)
        for tier, nbytes in taken.items():
            room = left.get(tier.on(device.node))
            if room is not None:
                left[tier.on(device.node)] = room - nbytes
    return parts, None


def _taken_below(problem: PlacementProblem, solution: Solution) -> dict[Device, int]:
    """Return what a stage takes of its node's host memory and disk, as its plan will count it.

    What is streamed leaves its buffers, and what the workload keeps for it, where it is executed.
    """
    loads, executing = problem.loads, solution.streaming.execution_devices
    found: dict[Device, int] = {}
    for at, (home, on) in enumerate(zip(solution.homes, executing, strict=True)):
        away = loads.buffers[at] if on != home else 0
        if not home.is_accelerator:
            found[home] = found.get(home, 0) + loads.weight[at] + loads.held[at] - away
        if not on.is_accelerator:
            found[on] = found.get(on, 0) + loads.run[at] + away
    for device in {on for on in executing if not on.is_accelerator}:
        slots = solution.streaming.slots.get(device)
        found[device] += problem.activation_bytes + (0 if slots is None else slots.nbytes)
    return found


def _stage_problem(
    question: _Question,
    whole: PlacementProblem,
    stage: int,
    own: Sequence[int],
    left: Mapping[Device, int | None],
) -> PlacementProblem:
    """Return the problem of one stage alone, with devices as its node calls them."""
    device = question.cluster.stages[stage]
    budgets = [replace(question.budgets[device], device=device.on(None))]
    for tier in sorted(left):
        if tier.node == device.node:
            budget = question.budgets[tier]
            capacity = None if left[tier] is None else max(0, left[tier] or 0) + budget.headroom_bytes
            kept = budget.headroom_bytes
            budgets.append(replace(budget, device=tier.on(None), capacity=capacity, headroom=kept))
    pins, excluded = question.constraints.pins, question.constraints.excluded
    strategy = Strategy.AUTO
    place_of = {at: place for place, at in enumerate(own)}
    units: Sequence[PlacementUnit] = SingleUnits(len(own), strategy)
    joined = [
        tuple(place_of[at] for at in unit.members) for unit in whole.units if unit.members[0] in place_of
    ]
    if len(joined) < len(own) or any(at in pins or at in excluded for at in own):
        units = tuple(
            PlacementUnit(
                group,
                _local_pin(pins, [own[at] for at in group]),
                strategy,
                frozenset(
                    each.on(None)
                    for at in group
                    for each in excluded.get(own[at], ())
                    if each.node in {None, device.node} and not each.is_accelerator
                ),
            )
            for group in joined
        )
    loads = AtomLoads(*([tuple([row[at] for at in own]) for row in _rows(whole.loads)]))  # type: ignore[arg-type]
    return PlacementProblem(
        tuple(whole.atoms[at] for at in own), units, loads, tuple(budgets), whole.activation_bytes
    )


def _rows(loads: AtomLoads) -> tuple[Sequence[int], ...]:
    return (loads.weight, loads.buffers, loads.slot, loads.held, loads.run, loads.frozen)


def _local_pin(pins: Mapping[int, Device], group: Sequence[int]) -> Device | None:
    found = next((pins[at] for at in group if at in pins), None)
    return None if found is None else found.on(None)


def _solve_stage(question: _Question, problem: PlacementProblem, stage: int) -> Solution | Overflow:
    if question.strategy == Strategy.FASTEST:
        costs = costs_of(
            problem,
            question.inventory,
            node_machine(question.cluster, stage),
            step_shape(question.config, question.inventory, question.cluster.parallel.microbatches),
            dtype=question.config.model.dtype,
        )
        found = solve_fastest(problem, costs, Objective.LATENCY)
        return found.candidate.solution if isinstance(found, Fastest) else found
    return solve(problem)


def _plan(
    config: PlacementConfig,
    question: _Question,
    whole: PlacementProblem,
    workload: WorkloadCharges,
    parts: Sequence[_Part],
) -> Plan:
    """Return the plan of all stages, proven."""
    count = len(question.atoms)
    homes: list[Device] = [DISK] * count
    executing: list[Device] = [DISK] * count
    in_place: set[int] = set()
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    for part, device in zip(parts, question.cluster.stages, strict=True):
        names = {
            each: each.on(device.node)
            for each in {*part.solution.homes, *part.solution.streaming.execution_devices}
        }
        names = {each: _one_object(question, own) for each, own in names.items()}
        for place, at in enumerate(part.members):
            homes[at] = names[part.solution.homes[place]]
            executing[at] = names[part.solution.streaming.execution_devices[place]]
        in_place.update(part.members[place] for place in part.solution.streaming.in_place)
        for each, slot in part.solution.streaming.slots.items():
            slots[each.on(device.node)] = replace(slot, atom=part.members[slot.atom])
        for each, nbytes in part.solution.streaming.needs.items():
            own = each.on(device.node)
            needs[own] = needs.get(own, 0) + nbytes
    streaming = Streaming(
        tuple(executing), MappingProxyType(slots), MappingProxyType(needs), frozenset(in_place)
    )
    solution = Solution(tuple(homes), streaming)
    name = question.strategy.value if question.strategy is not None else "manual"
    plan = plan_of(question.config, question.inventory, whole, workload, solution, strategy=name)
    pipeline = pipeline_of(
        question.config,
        question.inventory,
        question.cluster,
        question.charges,
        [(part.members, part.problem, part.solution) for part in parts],
    )
    plan = replace(plan, pipeline=pipeline, config_fingerprint=config_fingerprint(config))
    plan = replace(plan, reasons=reasons_of(plan, workload))
    prove(plan, question.inventory, question.config)
    return plan


def _one_object(question: _Question, device: Device) -> Device:
    """Return the object of the budgets for a device: runs of one device are told by identity."""
    return question.budgets[device].device if device in question.budgets else device
