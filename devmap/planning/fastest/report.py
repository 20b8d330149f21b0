"""Predicted times written into a plan.

Whose rates they come from, seconds, bound, and what they say in sentences.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from devmap.config.model.machines import preset
from devmap.config.values.device import DISK
from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import Objective, Strategy
from devmap.errors import ResolutionError
from devmap.planning.fastest.bound import bound_of
from devmap.planning.fastest.costs import FEMTOSECONDS, PassShape, costs_of, missing_rates
from devmap.planning.fastest.improve import SearchOrigin
from devmap.planning.fastest.schedule import format_seconds, pass_time, time_sentence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.fastest.search import Fastest
    from devmap.planning.problem.model import PlacementProblem, Solution

__all__ = ["check_fastest", "costs_for", "timed"]

_MOST_RATES = 6
_AT, _NEAR = 0.0005, 0.5
"""Shares of the bound above it up to which a plan is said to be at it, and near it."""


def costs_for(
    config: PlacementConfig, inventory: Inventory, problem: PlacementProblem, machine: MachineProfile | None
) -> PassCosts | None:
    """Return the costs of a pass on the machine that is given, or that the config names.

    None where no rates are known.
    """
    known = _with_rates(config, machine)
    if known is None:
        return None
    return costs_of(
        problem, inventory, known, PassShape.of(config.workload, inventory), dtype=config.model.dtype
    )


def check_fastest(
    config: PlacementConfig, machine: MachineProfile | None, offered: Collection[Device]
) -> None:
    """Check that `fastest` can plan for this config, where the config asks for it.

    Raises:
        ResolutionError: rates are missing, which it names, or the map mixes `fastest` with another strategy.
    """
    strategies = {target for target in config.device_map.values() if isinstance(target, Strategy)}
    if Strategy.FASTEST not in strategies:
        return
    if len(strategies) > 1:
        others = ", ".join(sorted(strategies - {Strategy.FASTEST}))
        raise ResolutionError(
            f"device_map asks for fastest in one subtree and {others} in another, and one pass goes "
            f"through both",
            help="pin modules to devices and leave all the rest to fastest, or use no fastest",
        )
    known = _with_rates(config, machine)
    missing = missing_rates(known, offered)
    if missing:
        listed = ", ".join(missing[:_MOST_RATES]) + (
            f" and {len(missing) - _MOST_RATES} more" if len(missing) > _MOST_RATES else ""
        )
        has = "no machine with rates is known" if known is None else f"the machine '{known.name}' lacks some"
        raise ResolutionError(
            f"device_map: fastest needs the rates of every offered device, and {has}: {listed}",
            help="name a preset (machine: 2x4090), or measure this machine with `devmap doctor -o "
            "machine.yaml`, add what is missing, "
            "and name that file (machine: machine.yaml)",
        )


def _with_rates(config: PlacementConfig, machine: MachineProfile | None) -> MachineProfile | None:
    named = config.machine
    for known in (machine, named, preset(named.name) if named is not None else None):
        if known is not None and any(
            device.memory_bandwidth or device.flops for device in known.devices.values()
        ):
            return known
    return None


def timed(
    plan: Plan,
    problem: PlacementProblem,
    costs: PassCosts,
    solution: Solution,
    *,
    fastest: Fastest | None = None,
) -> Plan:
    """Return the plan with its predicted pass time, the bound and a reason.

    As it was where the machine's rates do not tell.

    Both are of one pass of one request, whatever the objective, so that they can be held against a measured
    pass.
    """
    time = pass_time(costs, solution.homes, solution.streaming)
    if time is None:
        return plan
    bound = bound_of(problem, costs)
    aim = () if fastest is None else tuple(_aim(problem, costs, fastest))
    # Rates of a disk are those of its cold reads; nobody can plan with what the page cache will hold.
    reads = any(placement.home == DISK for placement in plan.streamed)
    cold = " while files are read from the disk (from the page cache a pass can be faster)" if reads else ""
    against = (
        f" No placement on this machine takes less than {format_seconds(bound)}{cold}"
        f"{_gap(time.latency, bound)}."
    )
    return replace(
        plan,
        predicted_seconds=time.seconds,
        bound_seconds=bound / FEMTOSECONDS,
        reasons=(*aim, *plan.reasons, time_sentence(time, costs.shape) + against),
    )


def _gap(value: int, bound: int) -> str:
    if not bound:
        return ""
    over = value / bound - 1
    if over < _AT:
        return ": this plan is at the bound"
    return (
        f": this plan is within {over:.1%} of it"
        if over < _NEAR
        else f"; this plan takes {over + 1:.1f} times as long"
    )


def _aim(problem: PlacementProblem, costs: PassCosts, fastest: Fastest) -> Iterator[str]:
    if fastest.objective is Objective.THROUGHPUT:
        stage = fastest.candidate.time.stage
        yield (
            f"fastest, for throughput: the slowest stage takes {format_seconds(stage)}, and no placement "
            f"has one below "
            f"{format_seconds(fastest.bound)}{_gap(stage, fastest.bound)}."
        )
    yield from _search(fastest)
    if fastest.chosen_in_place:
        nbytes = sum(problem.loads.slot[at] for at in fastest.chosen_in_place)
        modules = f"{len(fastest.chosen_in_place):,} module{'s' if len(fastest.chosen_in_place) > 1 else ''}"
        yield (
            f"The CPU computes {modules} ({format_bytes(nbytes)}) where "
            f"{'they lie' if modules.endswith('s') else 'it lies'}: "
            f"for a pass of {costs.shape} that takes less time than copying them to an accelerator."
        )


def _search(fastest: Fastest) -> Iterator[str]:
    """Yield how the placement was found, and what that says of better ones."""
    if fastest.origin is SearchOrigin.RUNS and fastest.is_exact:
        yield (
            "fastest: no contiguous runs over these accelerators, in any "
            "order of them, take less time (exact)."
        )
    elif fastest.origin is SearchOrigin.ALL:
        yield "fastest: every placement was tried, and none takes less time."
    elif fastest.origin is SearchOrigin.NEARBY:
        yield (
            "fastest: found by moving single blocks from a good placement while that "
            "helped; the bound below says what could be better."
        )
    elif fastest.origin in {SearchOrigin.ROUNDED, SearchOrigin.TURNS}:
        yield (
            "fastest: found by rounding the optimum of the relaxation; the bound below "
            "says how much better any placement could be."
        )
    elif fastest.origin in {SearchOrigin.AUTO, SearchOrigin.BALANCED}:
        yield (
            f"fastest: nothing was found that is faster than what {fastest.origin.value} "
            "does; the bound below says what could be."
        )
    if fastest.kept_order:
        yield (
            "fastest: there are too many different accelerators to search "
            "their order, so the order given was kept."
        )
    execution_devices = fastest.candidate.solution.streaming.execution_devices
    cuts = sum(
        1
        for one, other in pairwise(execution_devices)
        if one is not other and one.is_accelerator and other.is_accelerator
    )
    if cuts >= 2 * len({device for device in execution_devices if device.is_accelerator}) > 2:
        yield "The accelerators take turns block by block, so that their copies run at the same time."
