"""The bound holds for every placement there is, and the linear program behind it finds what trying finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.values.strategy import Objective
from devmap.planning.fastest.bound import bound_of, relaxation
from devmap.planning.fastest.costs import FEMTOSECONDS
from devmap.planning.fastest.simplex import minimise
from tests.planning.fastest_models import costs, every_placement, machine, posed, tiny
from tests.planning.planning_models import chain

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile
    from devmap.inventory.model import Inventory

Case = tuple["Inventory", "MachineProfile", dict[str, Any]]


@settings(max_examples=100, deadline=None)
@given(tiny(), st.sampled_from(Objective))
def test_no_placement_beats_the_bound(case: Case, objective: Objective) -> None:
    inventory, profile, keys = case
    problem = posed(inventory, profile, **keys) if _has_rates(keys, profile) else None
    if problem is None:
        return
    of = costs(problem, inventory, profile)
    bound = bound_of(problem, of, objective)
    for _, _, time in every_placement(problem, of):
        assert bound <= (time.latency if objective is Objective.LATENCY else time.stage)


def _has_rates(keys: dict[str, Any], profile: MachineProfile) -> bool:
    return all(any(str(device) == str(key) for device in profile.devices) for key in keys["max_memory"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.floats(0, 9)), min_size=2, max_size=4),
    st.floats(0, 6),
    st.floats(0, 6),
)
def test_the_simplex_method_meets_its_dual(
    columns: list[tuple[float, float, float]], first: float, second: float
) -> None:
    """Weak duality closes: the prices reproduce the least cost, and no corner that was drawn is cheaper."""
    cost, one, two = (list(row) for row in zip(*columns, strict=True))
    found = minimise(cost, [([1.0] * len(columns), 1.0)], [(one, first), (two, second)])
    if not found.is_feasible:
        return
    value = sum(a * b for a, b in zip(cost, found.values, strict=True))
    dual = (
        min(c + found.prices[0] * a + found.prices[1] * b for c, a, b in columns)
        - found.prices[0] * first
        - found.prices[1] * second
    )
    assert abs(value - dual) < 1e-6 * (1 + abs(value))
    assert abs(sum(found.values) - 1) < 1e-6
    assert all(
        row <= limit + 1e-6 for row, limit in zip(_sums(columns, found.values), (first, second), strict=True)
    )


def _sums(columns: list[tuple[float, float, float]], values: tuple[float, ...]) -> tuple[float, float]:
    return tuple(
        sum(column[row] * value for column, value in zip(columns, values, strict=True)) for row in (1, 2)
    )  # type: ignore[return-value]


def test_the_bound_of_a_model_that_does_not_fit_counts_copies() -> None:
    """Half of 10 equal modules stay.

    The other half is copied at 10 bytes a second, or computed by a CPU that reads 1 a second.
    """
    profile = machine({
        0: {"memory_bandwidth": 1000.0, "flops": 1e9, "host_to_device": 10.0},
        "cpu": {"memory_bandwidth": 1.0, "flops": 1e9},
    })  # fmt: skip
    inventory = chain(*[10] * 10)
    slow_host = posed(inventory, profile, max_memory={0: 50, "cpu": 100})
    assert (
        abs(bound_of(slow_host, costs(slow_host, inventory, profile)) - 50 * FEMTOSECONDS)
        < FEMTOSECONDS // 1000
    )  # host memory: 50 bytes
    shares = relaxation(slow_host, costs(slow_host, inventory, profile), Objective.LATENCY).shares[0]
    assert abs(sum(share for mode, share in shares.items() if mode.home.is_accelerator) - 0.5) < 1e-6
