"""The order of blocks is learned, and re-learned."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devmap.runtime.streaming.prefetch_order import Order


def test_the_models_order_is_assumed_before_anything_has_run() -> None:
    assert Order(3).upcoming(2) == [0, 1]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_after_two_passes_every_block_of_a_fixed_order_without_repeated_pairs_is_expected(
    order: list[int],
) -> None:
    pairs = list(zip(order[-1:] + order[:-1], order, strict=True))
    recorded = Order(6)
    for block in order * 2:
        recorded.record(block)
    expected = [recorded.record(block) for block in order]
    if len(set(pairs)) == len(pairs):
        assert all(expected)


def test_a_shared_block_has_two_successors_and_the_last_is_followed_by_the_first() -> None:
    order = Order(4)
    for block in [0, 1, 2, 1, 3] * 2:
        order.record(block)
    assert order.upcoming(3) == [0, 1, 2]
    for block in [0, 1, 2, 1]:
        order.record(block)
    assert order.upcoming(1) == [3]


def test_another_order_is_noticed_once_and_then_known() -> None:
    order = Order(3)
    for block in [0, 1, 2] * 2:
        order.record(block)
    misses = [[order.record(block) for block in [2, 1, 0]] for _ in range(3)]
    assert not all(misses[0])
    assert all(misses[2])
