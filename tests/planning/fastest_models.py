"""Machines and brute force for the tests of planning by time."""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.device import Device, parse_device
from devmap.config.values.size import Bytes
from devmap.planning.fastest.costs import PassCosts, PassShape, costs_of
from devmap.planning.fastest.schedule import PassTime, pass_time
from devmap.planning.placement.execution import is_within_budgets, streamed
from devmap.planning.resolve import problem_of
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.inventory.model import Inventory
    from devmap.planning.problem.model import PlacementProblem, Streaming

__all__ = ["RATES", "costs", "every_placement", "machine", "posed", "rates", "runs", "tiny"]

RATES = {"memory_bandwidth": 100.0, "flops": 1e9, "host_to_device": 10.0}


def machine(devices: Mapping[Any, Mapping[str, float]], *, memory: int = 10**6) -> MachineProfile:
    """A machine with these rates by device; one rate for all dtypes."""
    found = {}
    for key, rates in devices.items():
        named: dict[str, Any] = dict(rates)
        if "flops" in named:
            named["flops"] = {"float32": named["flops"], "bfloat16": named["flops"]}
        found[parse_device(key)] = MachineDevice(memory=Bytes(memory), **named)
    return MachineProfile(name="bench", devices=found)


def posed(inventory: Inventory, profile: MachineProfile, **keys: Any) -> PlacementProblem:
    return problem_of(config(device_map="fastest", machine=profile, **keys), inventory, profile).problem


def costs(
    problem: PlacementProblem, inventory: Inventory, profile: MachineProfile, shape: PassShape | None = None
) -> PassCosts:
    return costs_of(problem, inventory, profile, shape or PassShape(), dtype=None)


def every_placement(
    problem: PlacementProblem, of: PassCosts
) -> Iterator[tuple[tuple[Device, ...], Streaming, PassTime]]:
    """Every placement within the budgets.

    All homes, with every choice of what the CPU computes, with one slot and with two.
    """
    devices = [budget.device for budget in problem.budgets]
    for homes in product(devices, repeat=len(problem.atoms)):
        lower = [at for at, home in enumerate(homes) if not home.is_accelerator]
        for chosen in product((False, True), repeat=len(lower)):
            in_place = frozenset(at for at, stays in zip(lower, chosen, strict=True) if stays)
            for most_slots in (1, 2):
                streaming = streamed(problem, homes, in_place, most_slots=most_slots)
                time = pass_time(of, homes, streaming)
                if time is not None and is_within_budgets(problem, homes, streaming):
                    yield homes, streaming, time


def runs(problem: PlacementProblem, of: PassCosts) -> Iterator[PassTime]:
    """The time of every split into contiguous runs over the accelerators, in every order of them."""
    count = len(problem.atoms)
    for order in permutations(problem.accelerators):
        for ends in product(range(count + 1), repeat=len(order) - 1):
            cuts = [0, *ends, count]
            if cuts != sorted(cuts):
                continue
            homes = tuple(
                device
                for device, start, end in zip(order, cuts, cuts[1:], strict=False)
                for _ in range(start, end)
            )
            streaming = streamed(problem, homes, frozenset(), most_slots=2)
            time = pass_time(of, homes, streaming)
            if time is not None and is_within_budgets(problem, homes, streaming):
                yield time


@st.composite
def rates(draw: st.DrawFn, devices: Sequence[Any]) -> dict[Any, dict[str, float]]:
    """Rates for these devices, few values so that devices are often equal."""
    speed = st.sampled_from([1.0, 3.0, 10.0, 40.0])
    found: dict[Any, dict[str, float]] = {}
    for device in devices:
        if device == "disk":
            found[device] = {"disk": draw(speed)}
        else:
            found[device] = {"memory_bandwidth": draw(speed), "flops": draw(st.sampled_from([1e2, 1e9]))}
            if device != "cpu":
                found[device]["host_to_device"] = draw(speed)
    return found


@st.composite
def tiny(
    draw: st.DrawFn, *, most: int = 4, accelerators: int = 2, lower: bool = True
) -> tuple[Inventory, MachineProfile, dict[str, Any]]:
    """A chain of a few modules, a machine, and budgets around the model's size."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=most))
    inventory = chain(*sizes)
    keys: list[Any] = list(range(draw(st.integers(1, accelerators))))
    keys += [key for key in ("cpu", "disk") if lower and draw(st.booleans())]
    memory = {key: draw(st.integers(0, sum(sizes) + 4)) if key != "disk" else 100 for key in keys}
    return (
        inventory,
        machine(draw(rates([*keys, *(["cpu"] if "cpu" not in keys else [])]))),
        {"max_memory": memory},
    )
