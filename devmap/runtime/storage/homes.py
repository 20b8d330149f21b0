"""Homes of streamed blocks: where the bytes are while a block does not run.

A block on disk stays in the user's own safetensors and is read into a slab each time. A block on the CPU is
views of the mapped checkpoint, so that nothing is copied, or one copy where its tensors change on their way
(another dtype, a fused or transposed weight).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import torch

from devmap.devices.cpu import pageable
from devmap.runtime.storage.chunks import Chunk, parts_of
from devmap.runtime.storage.read_requests import REQUEST_BYTES, Recipe, recipe_of
from devmap.runtime.storage.weights import SlabLayout, Weight, assembled, flat_bytes, lay_out, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.runtime.storage.files import Files
    from devmap.runtime.storage.readers import PendingRead, Readers

__all__ = [
    "DiskHome",
    "HostHome",
    "HostSpan",
    "disk_home",
    "host_home",
    "is_mappable",
    "mapped",
    "read_weight",
]


@dataclass(frozen=True)
class DiskHome:
    """A block in files."""

    layout: SlabLayout
    recipe: Recipe
    readers: Readers
    parts: tuple[Chunk, ...]
    """What goes through the ring at a time: the whole block, unless a host slab is smaller."""
    forgets: bool = False
    """Whether the system's cache is to drop its bytes behind each reading."""

    def start(self, slab: torch.Tensor) -> PendingRead:
        """Fill a slab of host memory in the background."""
        return self.readers.start(self.recipe, slab[: self.layout.nbytes], forget=self.forgets)

    def start_part(self, number: int, slab: torch.Tensor) -> PendingRead:
        """Fill a host slab with one part."""
        part = self.parts[number]
        return self.readers.start(part.recipe, slab[: part.nbytes], forget=self.forgets)

    def cut(self, part_bytes: int) -> DiskHome:
        """Return the same home in parts of at most `part_bytes`."""
        # A recipe for parts is made only where a host slab is smaller than the block.
        return (
            self
            if self.layout.nbytes <= part_bytes
            else replace(self, parts=parts_of(self.layout, part_bytes))
        )

    def tensor(self, name: str, device: torch.device | None = None) -> torch.Tensor:
        """Return one weight in fresh host memory, or on a device.

        Raises:
            StreamError: when it cannot be read.
        """
        return read_weight(self.readers, self.layout.weight(name), device)


@dataclass(frozen=True)
class HostSpan:
    """Host memory side by side in a slab."""

    offset: int
    """In the slab, in bytes."""
    nbytes: int
    pieces: tuple[tuple[int, torch.Tensor], ...]
    """Flat bytes and where they go, counted from `offset`."""


@dataclass(frozen=True)
class HostHome:
    """A block in host memory."""

    layout: SlabLayout
    tensors: Mapping[str, torch.Tensor]
    readers: Readers
    parts: tuple[HostSpan, ...]
    """One for each run of bytes that are neighbours on both sides, or, once it is cut, one for each host
    slab."""

    def start_part(self, number: int, slab: torch.Tensor) -> PendingRead:
        """Copy one part into a host slab, by several threads."""
        return self.readers.copy(
            (slab[at + start : at + start + part.numel()], part)
            for at, flat in self.parts[number].pieces
            for start, part in zip(count(0, REQUEST_BYTES), torch.split(flat, REQUEST_BYTES), strict=False)
        )

    def cut(self, part_bytes: int) -> HostHome:
        """Return the same home in as few parts of at most `part_bytes` as there can be."""
        parts: list[HostSpan] = []
        for at, flat in [
            (stretch.offset + at, flat) for stretch in self.parts for at, flat in stretch.pieces
        ]:
            for start, piece in zip(count(at, part_bytes), torch.split(flat, part_bytes), strict=False):
                last = parts[-1] if parts else None
                if last is not None and start + piece.numel() - last.offset <= part_bytes:
                    parts[-1] = HostSpan(
                        last.offset,
                        start + piece.numel() - last.offset,
                        (*last.pieces, (start - last.offset, piece)),
                    )
                else:
                    parts.append(HostSpan(start, piece.numel(), ((0, piece),)))
        return replace(self, parts=tuple(parts))

    def tensor(self, name: str, device: torch.device | None = None) -> torch.Tensor:
        """Return one weight as it lies there, not to be written to, or a copy on a device."""
        weight = self.layout.weight(name)
        parts = {part.name: self.tensors[part.name] for part in weight.plain}
        if device is not None:
            parts = {part: tensor.to(device) for part, tensor in parts.items()}
        return assembled(parts, [weight] if weight.packing is not None else ())[name]


def disk_home(layout: SlabLayout, readers: Readers, *, request_bytes: int) -> DiskHome:
    """Return a home in the files behind a layout's weights."""
    recipe = recipe_of(layout, request_bytes=request_bytes)
    return DiskHome(layout, recipe, readers, (Chunk(0, layout.nbytes, recipe),))


def host_home(layout: SlabLayout, readers: Readers, made: dict[str, torch.Tensor]) -> HostHome:
    """Return a home in host memory: views where the stored bytes are the running bytes, copies of the rest.

    `made` are the tensors that other blocks have already, by name: a tied weight is held once. This block's
    are added.

    Raises:
        StreamError: when a weight cannot be read.
    """
    tensors: dict[str, torch.Tensor] = {}
    runs: list[tuple[int, torch.Tensor]] = []
    for field in layout.fields:
        name = field.weight.name
        tensor = made.get(name)
        if tensor is None:
            tensor = made[name] = _in_host_memory(field.weight, readers)
        tensors[name] = tensor
        flat = flat_bytes(tensor)
        if runs and _follows(runs[-1], field.offset, flat):
            start, before = runs[-1]
            runs[-1] = (start, torch.as_strided(before, (before.numel() + flat.numel(),), (1,)))
        elif flat.numel():
            runs.append((field.offset, flat))
    return HostHome(
        layout, tensors, readers, tuple(HostSpan(offset, flat.numel(), ((0, flat),)) for offset, flat in runs)
    )


def _follows(part: tuple[int, torch.Tensor], offset: int, flat: torch.Tensor) -> bool:
    start, before = part
    return (
        flat.numel() > 0
        and start + before.numel() == offset
        and before.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        and before.storage_offset() + before.numel() == flat.storage_offset()
    )


def _in_host_memory(weight: Weight, readers: Readers) -> torch.Tensor:
    if weight.has_value:
        return weight.value()
    view = mapped(weight, readers.files)
    return read_weight(readers, weight) if view is None else view


def is_mappable(weight: Weight) -> bool:
    """Return whether the stored bytes are the running ones, and aligned."""
    if len(weight.stored) != 1 or not weight.nbytes:
        return False
    stored, piece = weight.stored[0]
    return (
        piece.is_whole
        and torch_dtype(stored.dtype) is weight.dtype
        and stored.offset % weight.dtype.itemsize == 0
    )


def mapped(weight: Weight, files: Files) -> torch.Tensor | None:
    """Return a weight as a view of its mapped file; None where it is not mappable."""
    if not is_mappable(weight):
        return None
    stored, _ = weight.stored[0]
    return (
        files.view(stored.file)[stored.offset : stored.offset + weight.nbytes]
        .view(weight.dtype)
        .view(weight.shape)
    )


def read_weight(readers: Readers, weight: Weight, device: torch.device | None = None) -> torch.Tensor:
    """Return one weight from its file in fresh host memory, or on a device.

    Raises:
        StreamError: when it cannot be read.
    """
    layout = lay_out([weight])
    slab = pageable(layout.nbytes)
    readers.start(recipe_of(layout), slab).wait()
    return layout.view(slab if device is None else slab.to(device), weight.name)
