"""Bounds on work that hold on a slow machine and on a busy one: CPU time over that of a loop of known length.

A second on one machine is three on another, and on a busy one caches are cold. Both sides of a bound here are
measured in this process, and where the bound seems broken the loop is measured again, and its slowest run
counts, since the machine may have become slower meanwhile.
"""

from __future__ import annotations

import gc
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["at_most"]

_RUNS = 5


@contextmanager
def at_most(million_steps: float) -> Iterator[None]:
    """Fail where the body takes more CPU time than a loop with so many million steps.

    What was there before is kept from the garbage collector meanwhile: to walk through all that other tests
    have imported is no work of the body.
    """
    gc.freeze()
    try:
        start = time.process_time()
        yield
        spent = time.process_time() - start
    finally:
        gc.unfreeze()
    if spent > million_steps * _seconds_of_a_million():
        allowed = million_steps * max(_one() for _ in range(_RUNS))
        taken = million_steps * spent / allowed
        assert taken <= million_steps, f"took {taken:.0f} million steps, allowed {million_steps}"


@cache
def _seconds_of_a_million() -> float:
    return sorted(_one() for _ in range(_RUNS))[_RUNS // 2]


def _one() -> float:
    start, total = time.process_time(), 0
    for step in range(1_000_000):
        total += step & 3
    assert total
    return time.process_time() - start
