"""How the tensors of a checkpoint make the tensors of the running model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Box", "Mismatch", "Piece", "WeightMapping"]

Box = tuple[tuple[int, int], ...]
"""A rectangular part of a tensor: first and one past the last index of each dimension."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a stored tensor and where it goes in the model's tensor.

    `take` is the part of the stored tensor (None: all of it), `put` the part of the model's tensor that it
    fills (None: all of it). The part is transposed by `permute` and then reshaped to the shape of `put`: two
    experts' `[I, H]` matrices fill `[e, 0:I, 0:H]` of a fused `[E, 2I, H]`.
    """

    stored: str
    take: Box | None = None
    put: Box | None = None
    permute: tuple[int, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the stored bytes are the model's bytes, as they are."""
        return self.take is None and self.put is None and self.permute is None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A tensor of the model that the checkpoint holds in another shape."""

    name: str
    expected: tuple[int, ...]
    found: tuple[int, ...]
    pieces: tuple[Piece, ...] = ()
    """What the checkpoint holds for it: packed weights have the shape of their packing, and are no fault."""


@dataclass(frozen=True)
class WeightMapping:
    """For each tensor of the model, the pieces it is made of.

    Tied names map to the pieces of whichever of them the checkpoint holds.
    """

    pieces: Mapping[str, tuple[Piece, ...]]
    unmapped: tuple[str, ...] = ()
    """Stored tensors that no tensor of the model comes from."""
    ignored: tuple[str, ...] = ()
    """Stored tensors that the model's own code says it does not want (buffers that older versions saved)."""
    missing: tuple[str, ...] = ()
    """Persistent tensors of the model that no stored tensor makes."""
    mismatched: tuple[Mismatch, ...] = ()
    """Tensors of the model that the checkpoint holds in another shape; they have no pieces."""
