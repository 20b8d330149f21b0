"""The splits against brute force."""

from __future__ import annotations

from itertools import combinations_with_replacement

from hypothesis import given, settings
from hypothesis import strategies as st

from devmap.planning.placement.partition import Bin, LoadRow, balanced_split, fill, low_first_split

LOADS = st.lists(st.integers(0, 12), max_size=8)


@st.composite
def bins_for(draw: st.DrawFn, units: int) -> list[Bin]:
    excluded = st.lists(st.integers(0, max(units - 1, 0)), max_size=1) if units else st.just([])
    limits = st.integers(0, 40)
    one = st.builds(
        lambda limit, base, at: Bin(limit, min(base, limit), tuple(sorted(set(at)))),
        limits,
        st.integers(0, 4),
        excluded,
    )
    return draw(st.lists(one, min_size=1, max_size=4))


CASES = LOADS.flatmap(lambda loads: st.tuples(st.just(loads), bins_for(len(loads))))


def all_splits(loads: list[int], bins: list[Bin]) -> list[list[int]]:
    """Every contiguous split that fits, as the ends of the runs."""
    n = len(loads)
    found = []
    for cuts in combinations_with_replacement(range(n + 1), len(bins) - 1):
        ends = [*cuts, n]
        starts = [0, *cuts]
        if all(
            one.base + sum(loads[start:end]) <= one.limit
            and not any(start <= at < end for at in one.excluded)
            for one, start, end in zip(bins, starts, ends, strict=True)
        ):
            found.append(ends)
    return found


def loads_of(loads: list[int], bins: list[Bin], ends: list[int]) -> list[int]:
    return [one.base + sum(loads[start:end]) for one, start, end in zip(bins, [0, *ends], ends, strict=False)]


def runs(ends: list[int]) -> int:
    return sum(start < end for start, end in zip([0, *ends], ends, strict=False))


@settings(max_examples=300, deadline=None)
@given(CASES)
def test_filling_reaches_the_end_exactly_where_a_contiguous_split_fits(
    case: tuple[list[int], list[Bin]],
) -> None:
    loads, bins = case
    assert (fill(LoadRow.of(loads), bins)[-1] == len(loads)) == bool(all_splits(loads, bins))


@settings(max_examples=400, deadline=None)
@given(CASES)
def test_balanced_has_the_smallest_largest_load_then_the_fewest_cuts_then_is_the_most_even(
    case: tuple[list[int], list[Bin]],
) -> None:
    loads, bins = case
    splits = all_splits(loads, bins)
    found = balanced_split(LoadRow.of(loads), bins)
    if not splits:
        assert found is None
        return
    assert found in splits

    def key(ends: list[int]) -> tuple[int, int, int]:
        carried = loads_of(loads, bins, ends)
        return max(carried), runs(ends), sum(load**2 for load in carried)

    assert key(found) == min(map(key, splits))


@settings(max_examples=300, deadline=None)
@given(CASES)
def test_balanced_low_0_gives_the_first_device_the_fewest_bytes_that_let_the_rest_fit(
    case: tuple[list[int], list[Bin]],
) -> None:
    loads, bins = case
    splits = all_splits(loads, bins)
    found = low_first_split(LoadRow.of(loads), bins)
    if not splits:
        assert found is None
        return
    assert found in splits
    assert sum(loads[: found[0]]) == min(sum(loads[: ends[0]]) for ends in splits)


def test_a_split_with_wide_freedom_is_still_optimal() -> None:
    loads = [1] * 30_000 + [100_000] + [1] * 30_000
    bins = [Bin(10**6)] * 4
    ends = balanced_split(LoadRow.of(loads), bins)
    assert ends is not None
    assert max(loads_of(loads, bins, ends)) == 100_000
