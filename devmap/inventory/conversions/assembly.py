"""Stored tensors put together symbolically: which part of which one fills which part of the result.

The operations are those of transformers' weight conversions, done on shapes instead of numbers, so that a
reader can bring every byte of a checkpoint straight to its place in the running model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from devmap.inventory.stored.mapping import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.inventory.stored.header import StoredTensor
    from devmap.inventory.stored.mapping import Box

__all__ = [
    "Assembled",
    "AssemblyError",
    "concatenate",
    "flatten",
    "pieces_of",
    "reorder",
    "split",
    "stack",
    "stored",
    "transpose",
]

_Item = TypeVar("_Item")


class AssemblyError(ValueError):
    """Shapes that do not fit together; the caller says which tensors."""


class _Part(NamedTuple):
    """A box of a stored tensor and the box of the result that it fills."""

    source: StoredTensor
    take: Box
    put: Box
    axes: tuple[int | None, ...]
    """For each dimension of the result the stored tensor's dimension, None for one of size 1 that stacking
    added."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A tensor made of parts of stored ones."""

    shape: tuple[int, ...]
    parts: tuple[_Part, ...]

    @property
    def dtype(self) -> str:
        """The dtype of the first part."""
        return self.parts[0].source.dtype


def stored(tensor: StoredTensor) -> Assembled:
    """Return a stored tensor as it is."""
    box = _whole(tensor.shape)
    return Assembled(tensor.shape, (_Part(tensor, box, box, tuple(range(len(tensor.shape)))),))


def stack(tensors: Sequence[Assembled], dim: int) -> Assembled:
    """Tensors of one shape side by side in a new dimension."""
    shape = tensors[0].shape
    if any(tensor.shape != shape for tensor in tensors):
        raise AssemblyError(
            f"tensors of the shapes {sorted({tensor.shape for tensor in tensors})} cannot be stacked"
        )
    parts = tuple(
        _Part(
            part.source,
            part.take,
            _inserted(part.put, dim, (number, number + 1)),
            _inserted(part.axes, dim, None),
        )
        for number, tensor in enumerate(tensors)
        for part in tensor.parts
    )
    return Assembled(_inserted(shape, dim, len(tensors)), parts)


def concatenate(tensors: Sequence[Assembled], dim: int) -> Assembled:
    """Tensors one after the other in a dimension that they have."""
    first = tensors[0].shape
    _refuse_dim(first, dim)
    if any(
        len(tensor.shape) != len(first) or _replaced(tensor.shape, dim, 0) != _replaced(first, dim, 0)
        for tensor in tensors
    ):
        raise AssemblyError(
            f"tensors of the shapes {[tensor.shape for tensor in tensors]} cannot be joined in dimension "
            f"{dim}"
        )
    parts: list[_Part] = []
    offset = 0
    for tensor in tensors:
        parts += [
            _Part(part.source, part.take, _shifted(part.put, dim, offset), part.axes) for part in tensor.parts
        ]
        offset += tensor.shape[dim]
    return Assembled(_replaced(first, dim, offset), tuple(parts))


def split(tensor: Assembled, sizes: Sequence[int], dim: int) -> list[Assembled]:
    """Return the tensor cut into runs of these sizes along a dimension."""
    _refuse_dim(tensor.shape, dim)
    if sum(sizes) != tensor.shape[dim]:
        raise AssemblyError(f"dimension {dim} of {tensor.shape} cannot be split into {list(sizes)}")
    found: list[Assembled] = []
    start = 0
    for size in sizes:
        parts = tuple(cut for part in tensor.parts if (cut := _cut(part, dim, start, start + size)))
        found.append(Assembled(_replaced(tensor.shape, dim, size), parts))
        start += size
    return found


def transpose(tensor: Assembled, first: int, second: int) -> Assembled:
    """Return the tensor with two dimensions exchanged."""
    order = list(range(len(tensor.shape)))
    _refuse_dim(tensor.shape, first)
    _refuse_dim(tensor.shape, second)
    order[first], order[second] = order[second], order[first]
    parts = tuple(
        part._replace(put=tuple(part.put[dim] for dim in order), axes=tuple(part.axes[dim] for dim in order))
        for part in tensor.parts
    )
    return Assembled(tuple(tensor.shape[dim] for dim in order), parts)


def reorder(tensor: Assembled, order: Sequence[int], dim: int) -> Assembled:
    """Return the tensor with its slices along a dimension in another order.

    Runs of neighbours stay one part.
    """
    _refuse_dim(tensor.shape, dim)
    if sorted(order) != list(range(tensor.shape[dim])):
        raise AssemblyError(
            f"dimension {dim} of {tensor.shape} cannot be put in the order of {len(order)} slices"
        )
    sizes: list[int] = []
    firsts: list[int] = []
    for place, number in enumerate(order):
        if place and number == order[place - 1] + 1:
            sizes[-1] += 1
        else:
            firsts.append(number)
            sizes.append(1)
    cuts = sorted(zip(firsts, sizes, strict=True))
    parts = dict(
        zip([first for first, _ in cuts], split(tensor, [size for _, size in cuts], dim), strict=True)
    )
    return concatenate([parts[first] for first in firsts], dim)


def flatten(tensor: Assembled, dim: int) -> Assembled:
    """Return the tensor without a dimension of size 1."""
    if tensor.shape[dim] != 1:
        raise AssemblyError(f"dimension {dim} of {tensor.shape} is not 1")
    parts = tuple(
        part._replace(put=_without(part.put, dim), axes=_without(part.axes, dim)) for part in tensor.parts
    )
    return Assembled(_without(tensor.shape, dim), parts)


def pieces_of(tensor: Assembled) -> tuple[Piece, ...]:
    """Return the assembled tensor as pieces: None wherever a piece takes or fills everything."""
    return tuple(_piece(part, tensor.shape) for part in tensor.parts)


def _piece(part: _Part, shape: tuple[int, ...]) -> Piece:
    order = tuple(axis for axis in part.axes if axis is not None)
    return Piece(
        part.source.name,
        take=None if part.take == _whole(part.source.shape) else part.take,
        put=None if part.put == _whole(shape) else part.put,
        permute=None if order == tuple(range(len(order))) else order,
    )


def _cut(part: _Part, dim: int, start: int, end: int) -> _Part | None:
    low, high = part.put[dim]
    first, last = max(low, start), min(high, end)
    if first >= last and not (low == high == start):
        return None
    axis = part.axes[dim]
    take = part.take
    if axis is not None:
        base = take[axis][0]
        take = _replaced(take, axis, (base + first - low, base + last - low))
    return part._replace(take=take, put=_replaced(part.put, dim, (first - start, last - start)))


def _refuse_dim(shape: tuple[int, ...], dim: int) -> None:
    if not -len(shape) <= dim < len(shape):
        raise AssemblyError(f"a tensor of the shape {shape} has no dimension {dim}")


@lru_cache
def _whole(shape: tuple[int, ...]) -> Box:
    return tuple((0, size) for size in shape)


def _without(items: tuple[_Item, ...], place: int) -> tuple[_Item, ...]:
    return (*items[:place], *items[place + 1 :])


def _inserted(items: tuple[_Item, ...], place: int, item: _Item) -> tuple[_Item, ...]:
    return (*items[:place], item, *items[place:])


def _replaced(items: tuple[_Item, ...], place: int, item: _Item) -> tuple[_Item, ...]:
    found = list(items)
    found[place] = item
    return tuple(found)


def _shifted(box: Box, dim: int, by: int) -> Box:
    low, high = box[dim]
    return _replaced(box, dim, (low + by, high + by))
