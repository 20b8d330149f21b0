"""The best runs over devices in free order, against every order and every split."""

from __future__ import annotations

from itertools import permutations, product

from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.config.values.strategy import Objective
from devmap.planning.fastest import stage_order as fastest_order
from devmap.planning.fastest.stage_order import Stage, StageRuns, stages


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[Stage]]:
    count = draw(st.integers(1, 5))
    loads = draw(st.lists(st.integers(0, 6), min_size=count, max_size=count))
    kinds = [
        Stage(
            limit=draw(st.integers(0, 15)),
            compute=tuple(draw(st.lists(st.integers(0, 20), min_size=count, max_size=count))),
            boundary=draw(st.integers(0, 3)),
            excluded=tuple(sorted(draw(st.sets(st.integers(0, count - 1), max_size=1)))),
            base=draw(st.integers(0, 4)),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return loads, [draw(st.sampled_from(kinds)) for _ in range(draw(st.integers(1, 4)))]


def value(
    loads: list[int], devices: list[Stage], objective: Objective, runs: list[tuple[int, int]]
) -> int | None:
    """The sum of times with boundaries, or the longest stage; None where a run does not fit."""
    start, total, longest, last = 0, 0, max(device.base for device in devices), None
    for place, end in runs:
        if end == start:
            continue
        device = devices[place]
        if sum(loads[start:end]) > device.limit or any(start <= at < end for at in device.excluded):
            return None
        time = sum(device.compute[start:end])
        total += time + (0 if last is None else max(last.boundary, device.boundary))
        longest = max(longest, time + device.base)
        start, last = end, device
    return total if objective is Objective.LATENCY else longest


def by_trying_all(
    loads: list[int], devices: list[Stage], objective: Objective, *, any_order: bool = True
) -> int | None:
    places = range(len(devices))
    found = []
    for order in permutations(places) if any_order else [tuple(places)]:
        for ends in product(range(len(loads) + 1), repeat=len(devices) - 1):
            cuts = [*ends, len(loads)]
            if cuts == sorted(cuts):
                found.append(value(loads, devices, objective, list(zip(order, cuts, strict=True))))
    return min((one for one in found if one is not None), default=None)


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(Objective))
def test_no_split_in_any_order_of_the_devices_is_better(
    case: tuple[list[int], list[Stage]], objective: Objective
) -> None:
    loads, devices = case
    found = stages(loads, devices, objective)
    best = by_trying_all(loads, devices, objective)
    if found is None:
        assert best is None
        return
    assert found.is_order_free
    assert found.runs[-1][1] == len(loads)
    assert len({place for place, _ in found.runs}) == len(found.runs)
    assert value(loads, devices, objective, list(found.runs)) == best


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(Objective))
def test_past_its_limit_the_search_keeps_the_order_given_and_says_so(
    case: tuple[list[int], list[Stage]], objective: Objective
) -> None:
    loads, devices = case
    kept = fastest_order._MOST_STEPS
    fastest_order._MOST_STEPS = 0
    try:
        found = stages(loads, devices, objective)
    finally:
        fastest_order._MOST_STEPS = kept
    best = by_trying_all(loads, devices, objective, any_order=False)
    if found is None:
        assert best is None
        return
    assert not found.is_order_free
    assert [place for place, _ in found.runs] == sorted({place for place, _ in found.runs})
    assert value(loads, devices, objective, list(found.runs)) == best


def test_nothing_to_place_needs_no_device() -> None:
    assert stages([], [Stage(0, ())], Objective.LATENCY) == StageRuns((), is_order_free=True)


def test_sixteen_equal_devices_are_seventeen_sets() -> None:
    device = Stage(limit=30, compute=(1,) * 400)
    found = stages([1] * 400, [device] * 16, Objective.LATENCY)
    assert found is not None
    assert found.is_order_free
    assert len(found.runs) == 14
