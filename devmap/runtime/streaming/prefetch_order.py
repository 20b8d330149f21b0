"""The order in which blocks run, learned while they run.

What follows a block is what followed it last time after the same predecessor: so a block that is shared, and
runs twice in a pass, has two successors, and the first block follows the last one without any mark between
passes. Before a block has been seen, the model's own order is assumed. One wrong guess costs one synchronous
read and corrects the record.
"""

from __future__ import annotations

__all__ = ["Order"]


class Order:
    """Guesses the next of `count` blocks, numbered in the model's order."""

    def __init__(self, count: int) -> None:
        self._after = {block: (block + 1) % count for block in range(count)}
        self._after_pair: dict[tuple[int, int], int] = {}
        self._before = -1
        self._current = -1

    def record(self, block: int) -> bool:
        """Note that a block runs now; whether it was the one expected."""
        expected = self._next(self._before, self._current) if self._current >= 0 else block
        if self._current >= 0:
            self._after_pair[self._before, self._current] = block
            self._after[self._current] = block
        self._before, self._current = self._current, block
        return expected == block

    def upcoming(self, count: int) -> list[int]:
        """Return the next different blocks, nearest first.

        The first blocks of the model before anything has run.
        """
        before, current = self._before, self._current
        found: list[int] = []
        for _ in range(2 * count):
            before, current = current, (self._next(before, current) if current >= 0 else 0)
            if current not in found:
                found.append(current)
            if len(found) == count:
                break
        return found

    def _next(self, before: int, current: int) -> int:
        return self._after_pair.get((before, current), self._after[current])
