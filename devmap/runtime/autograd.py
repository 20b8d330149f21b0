"""Backward through streamed blocks: autograd keeps the names of their weights, and reads them again when it needs them.

A frozen weight is saved for backward by what is computed from it; its slot holds another block by then. What is saved is
therefore where the weight lies in its block, and backward fetches it from its home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from devmap.runtime.units import Unit

__all__ = ["saved_weights"]


@dataclass(frozen=True, slots=True)
class _Saved:
    name: str
    offset: int
    """From the weight's first element, in elements of `dtype`."""
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def saved_weights(unit: Unit, fetch: Callable[[str], torch.Tensor]) -> torch.autograd.graph.saved_tensors_hooks:
    """Hooks for the time of a block's forward; `fetch` gives a weight on the block's device by its name."""

    def pack(tensor: torch.Tensor) -> torch.Tensor | _Saved:
        slot = unit.slot
        if (
            slot is None
            or tensor.device != slot.slab.device
            or tensor.untyped_storage().data_ptr() != slot.slab.untyped_storage().data_ptr()
        ):
            return tensor
        first = tensor.storage_offset() * tensor.dtype.itemsize
        for field in unit.layout.fields:
            if field.offset <= first < field.offset + max(1, field.weight.nbytes):
                start = (first - field.offset) // tensor.dtype.itemsize
                return _Saved(field.weight.name, start, tuple(tensor.shape), tensor.stride(), tensor.dtype)
        return tensor.clone()

    def unpack(saved: torch.Tensor | _Saved) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        with torch.no_grad():
            weight = fetch(saved.name).view(-1).view(saved.dtype)
            return torch.as_strided(weight, saved.size, saved.stride, weight.storage_offset() + saved.offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)
