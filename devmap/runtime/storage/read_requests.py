"""Which bytes of which files make a slab, in requests of the size that disks like.

Tensors that are neighbours in a file become one request of up to 8 MiB that scatters into the slab; small
gaps between them are read and thrown away, because a second request costs more. Large tensors are cut, so
that several readers share them. Sizes after the loaders of exllamav3 (gap) and fastsafetensors (request),
which measured them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.runtime.storage.weights import SlabField, SlabLayout, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from devmap.inventory.stored.checkpoint import StoredTensor
    from devmap.inventory.stored.mapping import Box, Piece
    from devmap.runtime.storage.weights import Weight

__all__ = [
    "GAP_BYTES",
    "REQUEST_BYTES",
    "FileRange",
    "Recipe",
    "Request",
    "TensorConversion",
    "direct_ranges",
    "element_range",
    "merge",
    "recipe_of",
    "sides_of",
]

REQUEST_BYTES = 8 << 20
GAP_BYTES = 512 << 10
_PARTS = 256
"""Of one request; systems allow 1,024, half of them may be gaps."""


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of a file that go to the slab as they are."""

    path: Path
    offset: int
    nbytes: int
    at: int
    """Where they go, in bytes from the slab's start."""


@dataclass(slots=True)
class Request:
    """One read. `parts` are (where in the slab, bytes); the place is None for bytes that are thrown away."""

    path: Path
    offset: int
    nbytes: int = 0
    parts: list[tuple[int | None, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TensorConversion:
    """A part of a stored tensor that changes on its way.

    Another dtype, a transpose, columns of a fused tensor.
    """

    stored: StoredTensor
    piece: Piece
    target: SlabField


@dataclass(frozen=True)
class Recipe:
    """All that fills one slab."""

    requests: tuple[Request, ...]
    conversions: tuple[TensorConversion, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that are read from files, gaps included."""
        return sum(request.nbytes for request in self.requests) + sum(
            each.stored.nbytes for each in self.conversions
        )


def recipe_of(layout: SlabLayout, *, request_bytes: int = REQUEST_BYTES) -> Recipe:
    """Return how to fill a slab of this layout from the files behind its weights."""
    ranges: list[FileRange] = []
    conversions: list[TensorConversion] = []
    for target in layout.fields:
        for stored, piece in target.weight.stored:
            direct = _direct(stored, piece, target)
            if direct is None:
                conversions.append(TensorConversion(stored, piece, target))
            else:
                ranges.append(direct)
    return Recipe(tuple(merge(ranges, request_bytes=request_bytes)), tuple(conversions))


def direct_ranges(weight: Weight) -> list[FileRange] | None:
    """Return the bytes of a weight by their place in it; None where some of them change on their way."""
    ranges = [_direct(stored, piece, SlabField(weight, 0)) for stored, piece in weight.stored]
    return None if None in ranges else [each for each in ranges if each is not None]


def _direct(stored: StoredTensor, piece: Piece, target: SlabField) -> FileRange | None:
    """Return the bytes of a piece that need no change and are in one run on both sides.

    None where that is not so.
    """
    weight = target.weight
    if torch_dtype(stored.dtype) is not weight.dtype or piece.permute is not None:
        return None
    source = element_range(stored.shape, piece.take)
    put = element_range(weight.shape, piece.put)
    if source is None or put is None:
        return None
    size = weight.dtype.itemsize
    return FileRange(
        stored.file, stored.offset + source[0] * size, source[1] * size, target.offset + put[0] * size
    )


def sides_of(weight: Weight, stored: StoredTensor, piece: Piece) -> list[tuple[int, int]] | None:
    """Return which dimension of a weight runs along which of a stored tensor.

    In the weight's order and without those of size one.

    None where the piece is reshaped on its way, so that no dimension runs along another.
    """
    put = [last - first for first, last in piece.put] if piece.put is not None else list(weight.shape)
    take = [last - first for first, last in piece.take] if piece.take is not None else list(stored.shape)
    order = piece.permute if piece.permute is not None else tuple(range(len(take)))
    here = [index for index, size in enumerate(put) if size != 1]
    there = [index for index in order if take[index] != 1]
    if [put[index] for index in here] != [take[index] for index in there]:
        return None
    return list(zip(here, there, strict=True))


def element_range(shape: Sequence[int], box: Box | None) -> tuple[int, int] | None:
    """First element and number of elements of a box that is one run of a contiguous tensor, else None.

    >>> element_range((4, 3), ((1, 3), (0, 3)))
    (3, 6)
    >>> element_range((4, 3), ((0, 4), (0, 2))) is None
    True
    """
    first, count, is_long = 0, 1, False
    for size, (start, end) in zip(
        shape, box if box is not None else [(0, size) for size in shape], strict=True
    ):
        # Behind the first dimension with more than one index, every inner one must be whole, or the elements
        # lie apart.
        if is_long and (start, end) != (0, size):
            return None
        is_long = is_long or end - start != 1
        first, count = first * size + start, count * (end - start)
    return first, count


def merge(
    ranges: Iterable[FileRange], *, request_bytes: int = REQUEST_BYTES, gap_bytes: int = GAP_BYTES
) -> Iterator[Request]:
    """Requests of up to `request_bytes` that read every range once, in the order of the files."""
    current: Request | None = None
    for piece in _cut(sorted(ranges, key=lambda each: (str(each.path), each.offset)), request_bytes):
        # A gap is read into a place that nobody looks at: a few bytes more cost less than another call.
        gap = piece.offset - (current.offset + current.nbytes) if current is not None else 0
        if (
            current is None
            or piece.path != current.path
            or not 0 <= gap <= gap_bytes
            or current.nbytes + gap + piece.nbytes > request_bytes
            or len(current.parts) >= _PARTS
        ):
            if current is not None:
                yield current
            current, gap = Request(piece.path, piece.offset), 0
        if gap:
            current.parts.append((None, gap))
        current.parts.append((piece.at, piece.nbytes))
        current.nbytes += gap + piece.nbytes
    if current is not None:
        yield current


def _cut(ranges: Iterable[FileRange], request_bytes: int) -> Iterator[FileRange]:
    for each in ranges:
        for start in range(0, each.nbytes, request_bytes):
            yield FileRange(
                each.path, each.offset + start, min(request_bytes, each.nbytes - start), each.at + start
            )
