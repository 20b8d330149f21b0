"""From a config and an inventory to a proven plan. Pure: no torch, no files, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import Device
from devmap.config.values.strategy import Strategy, WorkloadKind
from devmap.errors import DevmapError, ResolutionError
from devmap.inventory.atoms import atoms as atoms_of
from devmap.inventory.atoms import tensor_sizes
from devmap.inventory.bulk import collector_paused
from devmap.inventory.fingerprint import fingerprint
from devmap.inventory.quantizing import label_of, quantized
from devmap.plan.fingerprint import config_fingerprint
from devmap.planning.placement.solve import solve
from devmap.planning.problem.budgets import budgets_of
from devmap.planning.problem.constraints import constraints_of
from devmap.planning.problem.model import Overflow, PlacementProblem
from devmap.planning.problem.units import AtomLoads, contract, weigh
from devmap.planning.problem.workload import WorkloadCharges, charges
from devmap.planning.result.assembly import plan_of
from devmap.planning.result.verify import prove
from devmap.planning.stages.cluster import is_cluster
from devmap.planning.turns import joined_plan, turn_of

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.fastest.search import Fastest
    from devmap.planning.problem.model import Solution

__all__ = ["Question", "Resolved", "problem_of", "resolve", "resolved"]


@dataclass(frozen=True)
class Question:
    """A config and an inventory, prepared: the problem to solve and what its report needs."""

    config: PlacementConfig
    inventory: Inventory
    problem: PlacementProblem
    workload: WorkloadCharges
    strategy: str


@dataclass(frozen=True)
class Resolved:
    """A plan with what it was made from, for whoever shows how it came about."""

    plan: Plan
    question: Question
    solution: Solution
    costs: PassCosts | None
    """None where the machine's rates are not known."""


def resolve(config: PlacementConfig, inventory: Inventory, *, machine: MachineProfile | None = None) -> Plan:
    """Return the concrete plan for a config, proven before it is returned.

    `machine` is what `max_memory` takes its shares of, and the devices where it is left out.

    Raises:
        ResolutionError: no plan fits; holds the shortfall in bytes and changes that fit, each tried.
        DeviceMapError: a manual map does not fit the model; lists every problem.
        QuantizationError: the config asks for a quantization that the model does not take.
    """
    if is_cluster(config, machine):
        # All that it imports would be loaded for every config of one machine.
        from devmap.planning.stages.resolve import resolve_stages  # noqa: PLC0415 - see above

        return resolve_stages(config, _as_run(config, inventory), machine=machine)
    if not config.takes_turns:
        return resolved(config, inventory, machine=machine).plan
    plans = {}
    for name in config.components:
        alone, part = turn_of(config, inventory, name)
        try:
            plans[name] = resolved(alone, part, machine=machine).plan
        except ResolutionError as error:
            error.message = f"{name}: {error.message}"
            raise
    return joined_plan(
        plans,
        inventory_fingerprint=fingerprint(inventory),
        config_fingerprint=config_fingerprint(config),
    )


@collector_paused()
def resolved(
    config: PlacementConfig, inventory: Inventory, *, machine: MachineProfile | None = None
) -> Resolved:
    """Resolve a config as `resolve` does, and keep the problem, its solution and the costs of a pass.

    Raises:
        ResolutionError, DeviceMapError: as `resolve`.
    """
    integers = [
        each.dtype for each in config.sources if each.dtype and each.dtype.startswith(("int", "uint"))
    ]
    if integers:
        raise ResolutionError(
            f"weights cannot be converted to {integers[0]} by a cast",
            help="leave model.dtype out: a quantised checkpoint keeps its own dtypes; or use bfloat16",
        )
    inventory = _as_run(config, inventory)
    question = problem_of(config, inventory, machine)
    costs = _costs(config, inventory, question.problem, machine)
    fastest: Fastest | None = None
    solution: Solution | Overflow
    if costs is not None and question.strategy == Strategy.FASTEST:
        fastest, solution = _solve_fastest(question.problem, costs, config)
    else:
        solution = solve(question.problem)
    if isinstance(solution, Overflow):
        from devmap.planning.infeasible.error import no_plan  # noqa: PLC0415 - as in _costs

        raise no_plan(
            config,
            question.problem,
            solution,
            lambda changed: _fits(changed, inventory, machine),
            machine=machine,
        )
    plan = plan_of(
        config, inventory, question.problem, question.workload, solution, strategy=question.strategy
    )
    if costs is not None:
        from devmap.planning.fastest.report import timed  # noqa: PLC0415 - as in _costs

        plan = timed(plan, question.problem, costs, solution, fastest=fastest)
    prove(plan, inventory, question.config)
    return Resolved(plan, question, solution, costs)


def problem_of(config: PlacementConfig, inventory: Inventory, machine: MachineProfile | None) -> Question:
    """Return the problem that a config poses for a model.

    Raises:
        ResolutionError: for constraints in conflict, unknown budgets, a device that nobody offers.
        DeviceMapError: for a manual map that does not fit the model.
    """
    config = _with_light_server(config)
    dtype = config.model.dtype
    budgets = budgets_of(config, machine)
    if not budgets:
        raise ResolutionError(
            "no device is offered", help="name at least one device in max_memory, such as {0: 20GB}"
        )
    if Strategy.FASTEST in config.device_map.values():
        from devmap.planning.fastest.report import check_fastest  # noqa: PLC0415 - as in _costs

        check_fastest(config, machine, {budget.device for budget in budgets})
    sizes = tensor_sizes(inventory, dtype)
    atoms = atoms_of(inventory, no_split_module_classes=config.no_split_module_classes, dtype=dtype)
    workload = charges(config.workload, inventory, atoms, dtype=dtype)
    constraints = constraints_of(
        config, inventory, atoms, {budget.device for budget in budgets}, workload.trained
    )
    units, copies = contract(
        inventory,
        atoms,
        constraints.pins,
        constraints.strategies,
        constraints.excluded,
        constraints.together,
        sizes,
    )
    weight, buffers, slot = weigh(inventory, atoms, copies, sizes, offload_buffers=config.offload.buffers)
    loads = AtomLoads(
        weight=tuple(weight),
        buffers=tuple(buffers),
        slot=tuple(slot),
        held=workload.totals(len(atoms), follows_home=True),
        run=workload.totals(len(atoms), follows_home=False),
        frozen=tuple([at not in workload.trained for at in range(len(atoms))])
        if workload.trained
        else (True,) * len(atoms),
    )
    problem = PlacementProblem(atoms, units, loads, budgets, workload.activation_bytes, copies)
    return Question(config, inventory, problem, workload, _strategy_name(config))


def _costs(
    config: PlacementConfig, inventory: Inventory, problem: PlacementProblem, machine: MachineProfile | None
) -> PassCosts | None:
    """Return the costs of a pass; None where no machine is named, and so no rates are known."""
    if machine is None and config.machine is None:
        return None
    # With all that it imports a twentieth of what `devmap validate` takes for a config that needs none of it.
    from devmap.planning.fastest.report import costs_for  # noqa: PLC0415 - see above

    return costs_for(config, inventory, problem, machine)


def _solve_fastest(
    problem: PlacementProblem, costs: PassCosts, config: PlacementConfig
) -> tuple[Fastest | None, Solution | Overflow]:
    from devmap.planning.fastest.search import Fastest, solve_fastest  # noqa: PLC0415 - as in _costs

    found = solve_fastest(problem, costs, config.objective)
    return (found, found.candidate.solution) if isinstance(found, Fastest) else (None, found)


def _with_light_server(config: PlacementConfig) -> PlacementConfig:
    """Return a server's `auto` is `balanced_low_0`.

    Batching and sampling run on device 0, which is kept light for them.
    """
    if config.workload is None or config.workload.kind is not WorkloadKind.SERVER:
        return config
    device_map = {
        key: Strategy.BALANCED_LOW_0 if target is Strategy.AUTO else target
        for key, target in config.device_map.items()
    }
    return config.model_copy(update={"device_map": device_map})


def _strategy_name(config: PlacementConfig) -> str:
    strategies = dict.fromkeys(
        target.value for target in config.device_map.values() if not isinstance(target, Device)
    )
    return "+".join(strategies) if strategies else "manual"


def _as_run(config: PlacementConfig, inventory: Inventory) -> Inventory:
    """Return the inventory of the model as it runs: quantised, where that is done while it is loaded.

    Raises:
        QuantizationError: when it cannot be quantised as the config asks.
        ResolutionError: when the inventory is of the model quantised in another way.
    """
    asked, done = config.model.quantization, inventory.quantized_by
    if config.components or asked == done:
        return inventory
    if done is not None:
        raise ResolutionError(
            f"this inventory is of a model that is loaded as {label_of(done)}, and the config asks for "
            f"{label_of(asked) if asked else 'whole weights'}",
            help="give the inventory of the whole model, or none",
        )
    return inventory.once(
        ("quantized", asked and asked.model_dump_json(), config.model.dtype),
        lambda: quantized(inventory, asked, dtype=config.model.dtype) if asked else inventory,
    )


def _fits(config: PlacementConfig, inventory: Inventory, machine: MachineProfile | None) -> bool:
    """Return whether a config has a plan."""
    try:
        as_run = _as_run(config, inventory)
        return not isinstance(solve(problem_of(config, as_run, machine).problem), Overflow)
    except DevmapError:
        return False
