"""Backward through streamed blocks.

Autograd keeps the names of their weights, and reads them again when it needs them.

A frozen weight is saved for backward by what is computed from it; its slot holds another block by then. What
is saved is therefore where the weight lies in its block, and backward fetches it from its home.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["is_innermost", "saved_weights"]


@dataclass(frozen=True, slots=True)
class _Saved:
    name: str
    offset: int
    """From the weight's first element, in elements of `dtype`."""
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def saved_weights(
    block: StreamedBlock, device: torch.device, fetch: Callable[[str], torch.Tensor]
) -> torch.autograd.graph.saved_tensors_hooks:
    """Hooks for the time of a block's forward on `device`; `fetch` gives a weight there by its name."""

    def pack(tensor: torch.Tensor) -> torch.Tensor | _Saved:
        if tensor.layout is not torch.strided or tensor.device != device or tensor.numel() == 0:
            return tensor
        found = block.locate(tensor.data_ptr())
        if found is None:
            return tensor
        name, nbytes = found
        return _Saved(
            name, nbytes // tensor.dtype.itemsize, tuple(tensor.shape), tensor.stride(), tensor.dtype
        )

    def unpack(saved: torch.Tensor | _Saved) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        with torch.no_grad():
            weight = fetch(saved.name).view(-1).view(saved.dtype)
            return torch.as_strided(weight, saved.size, saved.stride, weight.storage_offset() + saved.offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def is_innermost(hooks: torch.autograd.graph.saved_tensors_hooks) -> bool:
    """Return whether hooks are in force in this thread, and none that came after them."""
    # The only way to ask; the argument says to do so while tracing too.
    top: Any = torch._C._autograd._top_saved_tensors_default_hooks(True)  # noqa: SLF001
    return top is not None and top[0] is hooks.pack_hook
