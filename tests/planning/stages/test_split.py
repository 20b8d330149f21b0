"""The split over stages against brute force."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.planning.stages.split import Line, split_evenly, split_in_order
from tests.effort import at_most


def line_of(
    sizes: list[int],
    limits: list[int],
    room: dict[str, int],
    barred: dict[int, frozenset[int]],
    glued: set[int],
) -> Line:
    def cost(_: int, start: int, end: int) -> int:
        return sum(sizes[start:end])

    def spilled(stage: int, start: int, end: int) -> int:
        return max(0, cost(stage, start, end) - limits[stage])

    group = ["a" if stage < (len(limits) + 1) // 2 else "b" for stage in range(len(limits))]
    return Line(len(sizes), len(limits), cost, spilled, group, room, barred, frozenset(glued))


def fits(line: Line, ends: tuple[int, ...]) -> bool:
    spent: dict[str, int] = {}
    for stage, (start, end) in enumerate(pairwise((0, *ends))):
        spent[line.group[stage]] = spent.get(line.group[stage], 0) + line.spilled(stage, start, end)
        if end <= start or any(stage in line.barred.get(at, ()) for at in range(start, end)):
            return False
        if start in line.glued:
            return False
    return all(nbytes <= line.room[node] for node, nbytes in spent.items())


def largest(line: Line, ends: tuple[int, ...]) -> int:
    return max(line.cost(stage, start, end) for stage, (start, end) in enumerate(pairwise((0, *ends))))


def every_split(line: Line) -> list[tuple[int, ...]]:
    cuts = combinations(range(1, line.count), line.stages - 1)
    return [ends for cut in cuts if fits(line, ends := (*cut, line.count))]


SIZES = st.lists(st.integers(0, 12), min_size=4, max_size=9)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.lists(st.integers(4, 40), min_size=1, max_size=4))
def test_the_largest_stage_is_the_smallest_that_any_split_has(sizes: list[int], limits: list[int]) -> None:
    line = line_of(sizes, limits, {"a": 0, "b": 0}, {}, set())
    found, every = split_evenly(line), every_split(line)
    assert (found is None) == (not every)
    if found is not None:
        assert fits(line, found)
        assert largest(line, found) == min(largest(line, ends) for ends in every)


@settings(max_examples=300, deadline=None)
@given(SIZES, st.lists(st.integers(0, 20), min_size=2, max_size=4), st.integers(0, 30), st.data())
def test_a_split_that_is_found_fits_with_pins_glue_and_what_spills(
    sizes: list[int], limits: list[int], room: int, data: st.DataObject
) -> None:
    stages = len(limits)
    first = data.draw(st.integers(0, stages - 1))
    place = data.draw(st.integers(0, len(sizes) - 1))
    barred = {place: frozenset(range(stages)) - {first}}
    glued = set(data.draw(st.lists(st.integers(1, len(sizes) - 1), max_size=2)))
    line = line_of(sizes, limits, {"a": room, "b": room}, barred, glued)
    for found in (split_evenly(line), split_in_order(line)):
        if found is not None:
            assert fits(line, found)
            assert found[-1] == len(sizes)


def test_stages_before_the_largest_share_what_is_left() -> None:
    line = line_of([1] * 10 + [8], [20] * 4, {"a": 0, "b": 0}, {}, set())
    assert split_evenly(line) == (4, 8, 10, 11)


@pytest.mark.parametrize("count", [126, 20_000])
def test_a_long_line_over_many_stages_costs_little(count: int) -> None:
    sums = list(range(0, 7 * (count + 1), 7))
    line = Line(count, 32, lambda _, start, end: sums[end] - sums[start], lambda *_: 0, ["a"] * 32, {"a": 0})
    with at_most(million_steps=6):
        ends = split_evenly(line)
    assert ends is not None
    assert largest(line, ends) == 7 * -(-count // 32)
