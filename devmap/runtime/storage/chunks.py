"""A slab in parts: a block that is larger than a host slab is brought in stretch by stretch.

A weight is cut between its rows, at the coarsest dimension whose rows are small, so that each stretch of it
is a few boxes that lie in one run each. What makes the weight (fused experts, transposed or converted
tensors) is cut along: each box gets the pieces that fill it, and a part is read like a small block of its
own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from devmap.runtime.storage.read_requests import REQUEST_BYTES, Recipe, recipe_of, sides_of
from devmap.runtime.storage.weights import ALIGNMENT, SlabField, SlabLayout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.inventory.stored.checkpoint import StoredTensor
    from devmap.inventory.stored.mapping import Box, Piece
    from devmap.runtime.storage.weights import Weight

__all__ = ["Chunk", "boxes", "least_part_bytes", "parts_of"]

_GRAINS = 16
"""A weight is cut where no more than this share of a part stays empty."""


@dataclass(frozen=True)
class Chunk:
    """A stretch of a slab."""

    offset: int
    """In the slab, in bytes."""
    nbytes: int
    recipe: Recipe
    """How to fill it; places count from the part's own start."""


def parts_of(layout: SlabLayout, part_bytes: int, *, request_bytes: int = REQUEST_BYTES) -> tuple[Chunk, ...]:
    """Return a slab of this layout in parts of at most `part_bytes`, in the slab's order.

    Only a weight that cannot be cut (`least_part_bytes`) makes a larger part.
    """
    parts: list[Chunk] = []
    fields: list[SlabField] = []
    start = used = 0

    def close() -> None:
        nonlocal fields, start, used
        if fields:
            parts.append(
                Chunk(start, used, recipe_of(SlabLayout(tuple(fields), used), request_bytes=request_bytes))
            )
        fields, start, used = [], start + used, 0

    for field in layout.fields:
        done, grain = 0, _grain_bytes(field.weight, part_bytes)
        while done < field.weight.nbytes:
            size = min(field.weight.nbytes - done, (part_bytes - used) // grain * grain)
            if size <= 0 and used:
                close()
                continue
            size = max(size, min(grain, field.weight.nbytes - done))
            fields += _stretch(field.weight, done, done + size, used - done)
            done, used = done + size, used + size
    close()
    return tuple(parts)


def least_part_bytes(layout: SlabLayout) -> int:
    """Return the smallest part that this layout can be cut into, in bytes.

    The largest of its weights that cannot be cut, or a cache line.
    """
    return max((_grain_bytes(field.weight, 0) for field in layout.fields), default=0)


def boxes(shape: Sequence[int], first: int, last: int) -> Iterator[Box]:
    """Yield the elements `first` to `last` of a contiguous tensor, as boxes that lie in one run each.

    >>> list(boxes((3, 4), 2, 9))
    [((0, 1), (2, 4)), ((1, 2), (0, 4)), ((2, 3), (0, 1))]
    """
    if first >= last:
        return
    if len(shape) <= 1:
        yield ((first, last),) if shape else ()
        return
    inner = math.prod(shape[1:])
    start, end = -(-first // inner), last // inner
    if start > end:  # inside one row
        for box in boxes(shape[1:], first - end * inner, last - end * inner):
            yield ((end, end + 1), *box)
        return
    for box in boxes(shape[1:], first - (start - 1) * inner, inner) if start * inner > first else ():
        yield ((start - 1, start), *box)
    if start < end:
        yield ((start, end), *((0, size) for size in shape[1:]))
    for box in boxes(shape[1:], 0, last - end * inner):
        yield ((end, end + 1), *box)


def _grain_bytes(weight: Weight, part_bytes: int) -> int:
    """Return where a weight may be cut: at multiples of this, in bytes.

    What follows in the slab stays aligned.
    """
    if not all(sides_of(weight, stored, piece) is not None for stored, piece in weight.stored):
        return max(1, weight.nbytes)
    line = 1 if weight.nbytes % ALIGNMENT else ALIGNMENT  # ragged weights come last, by falling element size
    row = grain = max(1, weight.nbytes)
    for size in weight.shape:
        if grain * _GRAINS <= part_bytes:
            break
        row //= max(1, size)
        grain = math.lcm(row, line)
    return grain


def _stretch(weight: Weight, start: int, end: int, shift: int) -> Iterator[SlabField]:
    """Yield the bytes `start` to `end` of a weight as weights of their own.

    `shift` brings their places to the part's start.
    """
    if (start, end) == (0, weight.nbytes):
        yield SlabField(weight, start + shift)
        return
    size = weight.dtype.itemsize
    at = start + shift
    for box in boxes(weight.shape, start // size, end // size):
        stored = tuple(
            (tensor, cut)
            for tensor, piece in weight.stored
            if (cut := _cut(weight, tensor, piece, box)) is not None
        )
        yield SlabField(replace(weight, shape=tuple(last - first for first, last in box), stored=stored), at)
        at += math.prod(last - first for first, last in box) * size


def _cut(weight: Weight, stored: StoredTensor, piece: Piece, box: Box) -> Piece | None:
    """Return the part of a piece that fills a box of its weight, with places counted from the box's corner.

    None where it fills nothing.
    """
    put = piece.put if piece.put is not None else tuple((0, size) for size in weight.shape)
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(put, box, strict=True))
    if any(first >= last for first, last in both):
        return None
    take = list(piece.take if piece.take is not None else ((0, size) for size in stored.shape))
    sides = sides_of(weight, stored, piece)
    assert sides is not None
    for here, there in sides:
        begin = take[there][0] + both[here][0] - put[here][0]
        take[there] = (begin, begin + both[here][1] - both[here][0])
    goal = tuple(
        (first - corner, last - corner) for (first, last), (corner, _) in zip(both, box, strict=True)
    )
    return replace(piece, take=tuple(take), put=goal)
