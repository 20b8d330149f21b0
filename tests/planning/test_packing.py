"""A config is refused only if no placement fits.

Against brute force over all homes, with ties, whole classes, pins and `forbid`.
"""

from __future__ import annotations

import random
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.values.device import CPU
from devmap.errors import DevmapError, ResolutionError
from devmap.inventory.model import Inventory, Tensor, TensorKind
from devmap.planning.placement.execution import is_within_budgets, streamed
from devmap.planning.placement.solve import solve
from devmap.planning.problem.model import Overflow
from devmap.planning.resolve import problem_of, resolve
from devmap.planning.result.verify import faults_of
from tests.effort import at_most
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from devmap.planning.problem.model import PlacementProblem

KINDS: tuple[TensorKind, ...] = ("parameter", "parameter", "parameter", "buffer")
STRATEGIES = st.sampled_from(["auto", "sequential", "balanced", "balanced_low_0"])


def some_placement_fits(problem: PlacementProblem) -> bool:
    """Whether any homes fit, with any choice of what is streamed, in one slot."""
    offered = [budget.device for budget in problem.budgets]
    choices = [
        [unit.pin] if unit.pin else [device for device in offered if device not in unit.excluded]
        for unit in problem.units
    ]
    for homes in product(*choices):
        if any(
            sum(problem.resident_bytes[at] for at, home in enumerate(homes) if home == device)
            > problem.limit(device)
            for device in problem.accelerators
        ):
            continue
        placed = dict.fromkeys(range(len(problem.atoms)), CPU)
        for unit, home in zip(problem.units, homes, strict=True):
            placed.update(dict.fromkeys(unit.members, home))
        at_home = tuple(placed[at] for at in range(len(problem.atoms)))
        lower = [at for at, home in enumerate(at_home) if not home.is_accelerator]
        for stays in product((True, False), repeat=len(lower)):
            in_place = frozenset(at for at, stay in zip(lower, stays, strict=True) if stay)
            if is_within_budgets(problem, at_home, streamed(problem, at_home, in_place, most_slots=1)):
                return True
    return False


@st.composite
def tight(draw: st.DrawFn) -> tuple[Inventory, dict[str, Any]]:
    """A few blocks, some of them of two leaves, tied or not.

    And budgets that add up to a little more or less than all of them.
    """
    sizes = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    modules, tensors = {"": "Model"}, {}
    for at, size in enumerate(sizes):
        parts = [size] if draw(st.booleans()) else [size // 2, size - size // 2]
        modules[f"m{at}"] = "Block" if len(parts) > 1 else "Leaf"
        for part, nbytes in enumerate(parts):
            path = f"m{at}.{part}" if len(parts) > 1 else f"m{at}"
            modules[path] = "Block" if path == f"m{at}" and len(parts) > 1 else "Leaf"
            kind: TensorKind = draw(st.sampled_from(KINDS))
            tensors[f"{path}.weight"] = Tensor(f"{path}.weight", (nbytes,), "uint8", kind)
    names = [name for name, tensor in tensors.items() if tensor.kind == "parameter"]
    ties: tuple[tuple[str, ...], ...] = ()
    if len(names) > 1 and draw(st.booleans()):
        first, second = sorted(
            draw(st.lists(st.sampled_from(range(len(names))), min_size=2, max_size=2, unique=True))
        )
        tensors[names[second]] = Tensor(names[second], tensors[names[first]].shape, "uint8")
        ties = ((names[first], names[second]),)
    inventory = Inventory(modules, tensors, ties, draw(st.sampled_from([(), ("Block",)])))
    accelerators = draw(st.lists(st.integers(0, 6), min_size=0, max_size=3, unique=True))
    keys: list[Any] = [*sorted(accelerators), *[tier for tier in ("cpu", "disk") if draw(st.booleans())]] or [
        0
    ]
    weights = [draw(st.integers(0, 8)) for _ in keys]
    total = inventory.nbytes + draw(st.integers(-2, 6))
    memory = {
        key: max(0, total * weight // (sum(weights) or 1)) for key, weight in zip(keys, weights, strict=True)
    }
    asked: dict[str, Any] = {
        "max_memory": memory,
        "device_map": draw(STRATEGIES),
        "offload": {"buffers": draw(st.booleans())},
    }
    if draw(st.booleans()):
        asked["device_map"] = {
            f"m{draw(st.integers(0, len(sizes) - 1))}": draw(st.sampled_from(keys)),
            "": asked["device_map"],
        }
    if draw(st.booleans()):
        asked["forbid"] = {draw(st.sampled_from(keys)): [f"m{draw(st.integers(0, len(sizes) - 1))}"]}
    return inventory, asked


@settings(max_examples=100, deadline=None)
@given(tight())
def test_a_config_is_refused_if_and_only_if_brute_force_finds_no_placement(
    case: tuple[Inventory, dict[str, Any]],
) -> None:
    inventory, keys = case
    asked = config(**keys)
    try:
        problem = problem_of(asked, inventory, None).problem
    except DevmapError:
        return  # wishes at odds with each other are told before anything is packed
    found = solve(problem)
    assert isinstance(found, Overflow) is not some_placement_fits(problem)
    if not isinstance(found, Overflow):
        assert list(faults_of(resolve(asked, inventory), inventory, asked)) == []


def dealt(chance: random.Random) -> tuple[Inventory, dict[int, int]]:
    """Blocks in an order of their own, and budgets that some deal of them fills to the byte or nearly so."""
    hands = [
        [chance.randint(1, 12) for _ in range(chance.randint(1, 3))] for _ in range(chance.randint(2, 3))
    ]
    sizes = [size for hand in hands for size in hand]
    chance.shuffle(sizes)
    return chain(*sizes), {at: sum(hand) + chance.randint(0, 1) for at, hand in enumerate(hands)}


def test_blocks_that_were_dealt_out_of_order_find_a_place_and_most_of_them_by_packing() -> None:
    chance, packed, cases = random.Random(7), 0, 300
    for _ in range(cases):
        inventory, memory = dealt(chance)
        asked = config(max_memory=memory)
        plan = resolve(asked, inventory)
        assert list(faults_of(plan, inventory, asked)) == []
        packed += any("packed out of order" in reason for reason in plan.reasons)
    assert packed > cases // 2  # the others fit in the model's order


@pytest.mark.parametrize("strategy", ["auto", "balanced", "balanced_low_0", "sequential"])
def test_what_only_fits_out_of_order_is_packed_and_said_to_be(strategy: str) -> None:
    plan = resolve(config(device_map=strategy, max_memory={0: 12, 1: 21, 4: 7}), chain(7, 2, 11, 16))
    assert {use.device.plain: use.free_bytes for use in plan.devices} == {0: 1, 1: 3, 4: 0}
    assert plan.reasons == (
        (
            "No split of the model's order over the 3 devices offered fits: blocks are packed out of order, "
            "in 4 runs."
        ),
    )


def test_what_is_packed_lies_in_order_as_far_as_that_goes() -> None:
    """Ten equal layers between two that only fit on the device at the other end.

    No layer leaves its neighbours for nothing.
    """
    plan = resolve(config(max_memory={0: 52, 1: 71}), chain(21, *[10] * 8, 22))
    homes = [placement.home.plain for placement in plan.placements]
    assert sum(one != other for one, other in pairwise(homes)) == 1


def test_a_large_model_that_no_packing_holds_is_refused_in_bounded_time() -> None:
    sizes = [20 if at % 2 else 30 for at in range(6_000)]
    with at_most(million_steps=150), pytest.raises(ResolutionError, match="given up"):
        resolve(config(max_memory={**dict.fromkeys(range(7), 18_755), 7: 18_715}), chain(*sizes))
