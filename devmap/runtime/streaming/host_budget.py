"""How much of what: host slabs, slots, and what the page cache is left to keep, from a plan's bytes.

Arithmetic only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from devmap.config.values.device import Device
    from devmap.plan.model import Plan

__all__ = ["RING", "charged_for_slots", "kept_in_cache", "ring_shape", "slot_count"]

RING = 4
"""Blocks that host memory holds ahead. Two reach the bound when the disk is even; four absorb its jitter."""
_SLAB_BYTES = 64 << 20
"""Of a host slab: several requests, so that all readers share it, and a power of two, as pinned memory is
handed out."""
_LINE_BYTES = 64
_CACHED = 0.8
"""Of the memory that is free: what streamed files may take of the page cache before it begins to evict them.
"""


def ring_shape(largest_bytes: int, budget_bytes: int, taken: Callable[[int], int]) -> tuple[int, int]:
    """Size and number of host slabs for blocks of at most `largest_bytes`.

    As many as hold four of the largest blocks, within `budget_bytes`; two at least, for which a slab becomes
    smaller than a block where it must. `taken(nbytes)` is what a slab of that size really takes.

    >>> ring_shape(100, 1000, lambda nbytes: nbytes)
    (100, 4)
    >>> ring_shape(1000, 512, lambda nbytes: nbytes)
    (256, 2)
    """
    size = min(largest_bytes, _SLAB_BYTES)
    while size > _LINE_BYTES and 2 * taken(size) > budget_bytes:
        size = -(-size // 2 // _LINE_BYTES) * _LINE_BYTES
    if size < largest_bytes:  # parts of one size keep the stages in step
        size = min(size, -(-largest_bytes // -(-largest_bytes // size) // _LINE_BYTES) * _LINE_BYTES)
    wanted = RING * -(-largest_bytes // size)
    return size, max(1, min(wanted, budget_bytes // max(1, taken(size))))


def charged_for_slots(plan: Plan, device: Device) -> int:
    """Return the bytes that a plan keeps for the slots of a device; 0 where it says nothing."""
    use = plan.use_of(device)
    return sum(charge.nbytes for charge in use.charges if charge.what == "slots") if use is not None else 0


def slot_count(charged_bytes: int, largest_bytes: int, kept_bytes: int = 0) -> int:
    """Slots of the largest block, beside `kept_bytes`: two, or one where no more is charged for.

    Two where nothing is.
    """
    return min(2, max(1, (charged_bytes - kept_bytes) // max(1, largest_bytes))) if charged_bytes else 2


def kept_in_cache(sizes: Sequence[int], room_bytes: int) -> Iterator[bool]:
    """Yield for each block, of some that are read from disk in turn, whether the page cache should keep it.

    All of them where they fit into four fifths of the room. Where they do not, a cache that drops what was
    used least recently drops each block just before it is needed again, and everything else that was in it
    too. A fixed share that fits is then the most that can be had: these blocks are kept, spaced evenly, and
    the bytes of the others dropped behind the reader.

    >>> list(kept_in_cache([10] * 6, 40))
    [False, True, False, True, False, True]
    """
    share = min(1.0, _CACHED * max(0, room_bytes) / max(1, sum(sizes)))
    used = wanted = 0.0
    for size in sizes:
        wanted += share * size
        keeps = used + size <= wanted + 1e-6 * size
        used += size * keeps
        yield keeps
