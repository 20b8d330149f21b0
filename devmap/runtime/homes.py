"""Homes of streamed blocks: where the bytes are while a block does not run.

A block on disk stays in the user's own safetensors and is read into a slab each time. A block on the CPU is views of the
mapped checkpoint, so that nothing is copied, or one copy where its tensors change on their way (another dtype, a fused or
transposed weight).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.runtime.requests import Recipe, recipe_of
from devmap.runtime.weights import Layout, Weight, flat_bytes, lay_out, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.runtime.files import Files
    from devmap.runtime.readers import Readers, Reading

__all__ = ["DiskHome", "HostHome", "disk_home", "host_home", "is_mappable", "mapped", "read_weight"]


@dataclass(frozen=True)
class DiskHome:
    """A block in files."""

    layout: Layout
    recipe: Recipe
    readers: Readers

    def start(self, slab: torch.Tensor) -> Reading:
        """Fill a slab of host memory in the background."""
        return self.readers.start(self.recipe, slab[: self.layout.nbytes])

    def tensor(self, name: str) -> torch.Tensor:
        """One weight in fresh host memory.

        Raises:
            StreamError: when it cannot be read.
        """
        return read_weight(self.readers, next(field.weight for field in self.layout.fields if field.weight.name == name))


@dataclass(frozen=True)
class HostHome:
    """A block in host memory."""

    layout: Layout
    tensors: Mapping[str, torch.Tensor]
    parts: tuple[tuple[int, torch.Tensor], ...]
    """Flat bytes and where in a slab they go; neighbours on both sides are one part."""

    def tensor(self, name: str) -> torch.Tensor:
        """One weight, as it lies there: not to be written to."""
        return self.tensors[name]


def disk_home(layout: Layout, readers: Readers, *, request_bytes: int) -> DiskHome:
    """A home in the files behind a layout's weights."""
    return DiskHome(layout, recipe_of(layout, request_bytes=request_bytes), readers)


def host_home(layout: Layout, readers: Readers) -> HostHome:
    """A home in host memory: views where the stored bytes are the running bytes, copies of the rest.

    Raises:
        StreamError: when a weight cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    parts: list[tuple[int, torch.Tensor]] = []
    for field in layout.fields:
        tensor = _in_host_memory(field.weight, readers)
        tensors[field.weight.name] = tensor
        flat = flat_bytes(tensor)
        if parts and _follows(parts[-1], field.offset, flat):
            start, before = parts[-1]
            parts[-1] = (start, torch.as_strided(before, (before.numel() + flat.numel(),), (1,)))
        elif flat.numel():
            parts.append((field.offset, flat))
    return HostHome(layout, tensors, tuple(parts))


def _follows(part: tuple[int, torch.Tensor], offset: int, flat: torch.Tensor) -> bool:
    start, before = part
    return (
        flat.numel() > 0
        and start + before.numel() == offset
        and before.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        and before.storage_offset() + before.numel() == flat.storage_offset()
    )


def _in_host_memory(weight: Weight, readers: Readers) -> torch.Tensor:
    if weight.live is not None:
        return weight.live.detach().to("cpu", weight.dtype)
    view = mapped(weight, readers.files)
    return read_weight(readers, weight) if view is None else view


def is_mappable(weight: Weight) -> bool:
    """Whether the stored bytes are the running ones, and aligned."""
    if len(weight.stored) != 1 or not weight.nbytes:
        return False
    stored, piece = weight.stored[0]
    return piece.is_whole and torch_dtype(stored.dtype) is weight.dtype and stored.offset % weight.dtype.itemsize == 0


def mapped(weight: Weight, files: Files) -> torch.Tensor | None:
    """A weight as a view of its mapped file; None where it is not mappable."""
    if not is_mappable(weight):
        return None
    stored, _ = weight.stored[0]
    return files.view(stored.file)[stored.offset : stored.offset + weight.nbytes].view(weight.dtype).view(weight.shape)


def read_weight(readers: Readers, weight: Weight) -> torch.Tensor:
    """One weight from its file in fresh host memory.

    Raises:
        StreamError: when it cannot be read.
    """
    layout = lay_out([weight])
    slab = torch.empty(layout.nbytes, dtype=torch.uint8)
    readers.start(recipe_of(layout), slab).wait()
    return layout.view(slab, weight.name)
