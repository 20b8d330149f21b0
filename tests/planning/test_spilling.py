"""What stays on the accelerators when something must spill, against brute force over all assignments."""

from __future__ import annotations

from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.planning.resolve import resolve
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.model import Plan

BELOW = -1
SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)
LIMITS = st.lists(st.integers(1, 16), min_size=1, max_size=3)
ROOMY = 10**6


def planned(sizes: Sequence[int], limits: Sequence[int], strategy: str = "auto", **memory: int) -> Plan:
    return resolve(
        config(device_map=strategy, max_memory={**dict(enumerate(limits)), **(memory or {"cpu": ROOMY})}),
        chain(*sizes),
    )


def in_order(sizes: Sequence[int], limits: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every assignment to the letter of `auto`; -1 is cpu.

    Devices are used in order, each only for what found no room on the one before it, and nothing is stepped
    round that a device from there on could hold. How much of the last one is kept for slots is free.
    """
    for homes in product(range(BELOW, len(limits)), repeat=len(sizes)):
        left = [
            limit - sum(size for size, home in zip(sizes, homes, strict=True) if home == d)
            for d, limit in enumerate(limits)
        ]
        placed = [(-1, 0), *((at, home) for at, home in enumerate(homes) if home != BELOW)]
        forward = all(home <= after for (_, home), (_, after) in pairwise(placed))
        filled = all(
            max(sizes[one + 1 : at + 1]) > max(left[before:home], default=0)
            for (one, before), (at, home) in pairwise(placed)
        )
        if min(left) >= 0 and forward and filled and not _steps_round_too_much(sizes, limits, homes):
            yield homes


def _steps_round_too_much(sizes: Sequence[int], limits: Sequence[int], homes: Sequence[int]) -> bool:
    for at, home in enumerate(homes):
        after = [later for later in homes[at + 1 :] if later != BELOW]
        if home == BELOW and after and sizes[at] <= max(limits[after[0] :]):
            return True
    return False


def cost_of(sizes: Sequence[int], limits: Sequence[int], homes: Sequence[int]) -> int:
    """The least weighed bytes of a pass with these homes.

    Over every size and number of slots on every device.
    """
    queues: dict[int, list[int]] = {}
    nearest = 0
    for size, home in zip(sizes, homes, strict=True):
        nearest = home if home != BELOW else nearest
        if home == BELOW:
            queues.setdefault(nearest, []).append(size)
    total = 0
    for device, queue in queues.items():
        room = limits[device] - sum(size for size, home in zip(sizes, homes, strict=True) if home == device)
        choices = [8 * sum(queue)]
        for slot in set(queue):
            streamed = sum(size for size in queue if size <= slot)
            rest = 8 * (sum(queue) - streamed)
            choices += [
                weight * streamed + rest for count, weight in ((2, 2), (1, 3)) if count * slot <= room
            ]
        total += min(choices)
    return total


def values(plan: Plan) -> list[int]:
    return [placement.home.index if placement.home.is_accelerator else BELOW for placement in plan.placements]


@settings(max_examples=150, deadline=None)
@given(SIZES, LIMITS, st.sampled_from(["auto", "sequential"]))
def test_auto_and_sequential_hold_the_most_bytes_in_order_where_nothing_is_kept_for_slots(
    sizes: list[int], limits: list[int], strategy: str
) -> None:
    plan = planned(sizes, limits, strategy)
    ours = sum(size for size, home in zip(sizes, values(plan), strict=True) if home != BELOW)
    slots = sum(
        charge.nbytes
        for use in plan.devices
        for charge in use.charges
        if charge.what == "slots" and use.device.is_accelerator
    )
    most = max(
        sum(size for size, home in zip(sizes, homes, strict=True) if home != BELOW)
        for homes in in_order(sizes, limits)
    )
    assert ours <= most
    if not slots:
        assert ours == most


@settings(max_examples=250, deadline=None)
@given(SIZES, LIMITS)
def test_auto_pays_the_least_for_what_spills_of_all_assignments_in_order_on_the_same_devices(
    sizes: list[int], limits: list[int]
) -> None:
    ours = values(planned(sizes, limits))
    best: dict[frozenset[int], int] = {}
    for homes in in_order(sizes, limits):
        used = frozenset(homes) - {BELOW}
        best[used] = min(best.get(used, cost_of(sizes, limits, homes)), cost_of(sizes, limits, homes))
    assert tuple(ours) in set(in_order(sizes, limits))
    assert cost_of(sizes, limits, ours) <= best[frozenset(ours) - {BELOW}]


@settings(max_examples=150, deadline=None)
@given(SIZES, LIMITS, st.sampled_from(["auto", "balanced", "balanced_low_0"]))
def test_nothing_spills_that_fits_beside_the_slots(
    sizes: list[int], limits: list[int], strategy: str
) -> None:
    plan = planned(sizes, limits, strategy)
    homes = values(plan)
    last = max((at for at, home in enumerate(homes) if home != BELOW), default=-1)
    use = plan.devices[homes[last] if last >= 0 else 0]
    assert use.free_bytes is not None
    if strategy != "auto" or last + 1 >= len(sizes):
        return
    assert sizes[last + 1] > use.free_bytes


@settings(max_examples=100, deadline=None)
@given(SIZES, LIMITS, st.sampled_from(["balanced", "balanced_low_0"]))
def test_balanced_spills_only_what_an_order_preserving_fill_cannot_hold(
    sizes: list[int], limits: list[int], strategy: str
) -> None:
    balanced = [home for home in values(planned(sizes, limits, strategy)) if home != BELOW]
    assert balanced == sorted(balanced)
    if BELOW not in values(planned(sizes, limits)):
        assert len(balanced) == len(sizes)


def test_a_block_over_half_an_accelerator_does_not_leave_accelerators_empty() -> None:
    plan = planned([6, 6, 3, 6, 1], [10, 10], cpu=100)
    assert values(plan) == [0, 1, 1, BELOW, BELOW]
    assert [placement.executes_on.plain for placement in plan.placements] == [0, 1, 1, "cpu", 1]


def test_blocks_that_fit_no_slot_beside_anything_are_all_streamed_rather_than_left_to_the_cpu() -> None:
    plan = planned([6, 6, 6, 6], [10], cpu=100)
    assert {placement.executes_on.plain for placement in plan.placements} == {0}


def test_the_slots_are_as_large_as_what_streams_and_no_larger() -> None:
    plan = planned([8, *[2] * 20, 8], [30])
    slots = next(charge for charge in plan.devices[0].charges if charge.what == "slots")
    assert slots.nbytes in {4, 8, 16}
    assert plan.devices[0].free_bytes == 30 - plan.devices[0].weight_bytes - slots.nbytes


@pytest.mark.parametrize("cpu", [10, 11, 14])
def test_slots_are_given_up_where_the_lower_tiers_have_no_room_for_what_they_drive_out(cpu: int) -> None:
    plan = planned([5, 5, 5, 5, 5, 5], [20], cpu=cpu)
    assert values(plan) == [0, 0, 0, 0, BELOW, BELOW]


def test_a_smaller_accelerator_takes_what_follows_a_unit_that_it_cannot_hold() -> None:
    assert values(planned([6, 6, 2, 2], [10, 5], cpu=100)) == [0, BELOW, 1, 1]
