"""Loading the weights that stay: each byte is read once, straight to its device, through a little host memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.homes import is_mappable, mapped, read_weight
from devmap.runtime.paging import can_populate
from devmap.runtime.requests import Range, Recipe, direct_ranges, merge, recipe_of
from devmap.runtime.weights import flat_bytes, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devmap.config.device import Device
    from devmap.devices.backend import Backend
    from devmap.runtime.readers import Readers, Reading
    from devmap.runtime.survey import Spot
    from devmap.runtime.weights import Weight

__all__ = ["Resident", "bind_residents", "host_buffer", "load_residents"]


_PAGES_BYTES = 32 << 20
"""Pages that one thread brings in at a time; nothing is copied."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A weight that stays on a device, and the places that show it."""

    weight: Weight
    device: Device
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class _Step:
    """One filling of the host buffer: what is read into it, and which of its bytes go where."""

    recipe: Recipe
    nbytes: int
    copies: tuple[tuple[torch.Tensor, int], ...]
    """Flat bytes on the device, and where they start in the buffer."""


def load_residents(
    residents: Sequence[Resident], readers: Readers, *, buffer_bytes: int, limit_bytes: int, report: Callable[[int], None]
) -> Mapping[tuple[str, Device], torch.Tensor]:
    """Bring every resident weight to its device; `report(nbytes)` is told of each part that arrived.

    Two host buffers of `buffer_bytes` take turns: one is read into while the other is copied from. A weight that is changed
    on its way and is larger than a buffer makes the buffers larger, within `limit_bytes` for both.

    Raises:
        OutOfMemoryError: when a device has no room.
        StreamError: when a weight cannot be read.
    """
    placed: dict[tuple[str, Device], torch.Tensor] = {}
    by_device: dict[Device, list[tuple[Weight, torch.Tensor]]] = {}
    on_pages: list[Weight] = []
    backends = {device: backend_for(device) for device in {resident.device for resident in residents}}
    for resident in residents:
        weight, device = resident.weight, resident.device
        backend = backends[device]
        key = (weight.name, device)
        ready = _in_place(weight, backend, readers)
        if ready is not None:
            placed[key] = ready
            if weight.live is None and is_mappable(weight):
                on_pages.append(weight)
            else:
                report(weight.nbytes)
            continue
        flat = backend.allocate(weight.nbytes)
        placed[key] = flat.view(weight.dtype).view(weight.shape)
        if weight.live is not None:
            backend.copy(flat, flat_bytes(weight.live.detach().to("cpu", weight.dtype)))
            report(weight.nbytes)
        else:
            by_device.setdefault(device, []).append((weight, flat))
    for device, waiting in by_device.items():
        waiting.sort(key=lambda each: (str(each[0].stored[0][0].file), each[0].stored[0][0].offset))
        _run(list(_steps(waiting, buffer_bytes)), backends[device], readers, report, limit_bytes=limit_bytes)
    _bring_pages(on_pages, readers, report)
    return placed


def _bring_pages(weights: Sequence[Weight], readers: Readers, report: Callable[[int], None]) -> None:
    """Read what is mapped by several threads now: a kernel that met the pages first would wait for one small read after another."""
    if can_populate():
        ranges = [each for weight in weights for each in direct_ranges(weight) or ()]
        recipe = Recipe(tuple(merge(ranges, request_bytes=_PAGES_BYTES)), ())
        pages = {request.path: readers.files.pages(request.path, streamed=False) for request in recipe.requests}
        readers.populate(recipe, pages, again=False, after=None).wait()
    report(sum(weight.nbytes for weight in weights))


def _in_place(weight: Weight, backend: Backend, readers: Readers) -> torch.Tensor | None:
    """The weight where no copy is needed, or where host memory is its home; None where it has to be moved."""
    live = weight.live
    if live is not None:
        return live if live.device == backend.torch_device and live.dtype == weight.dtype else None
    if backend.device.is_accelerator:
        return None
    view = mapped(weight, readers.files)
    return read_weight(readers, weight) if view is None else view


def _steps(waiting: Sequence[tuple[Weight, torch.Tensor]], buffer_bytes: int) -> Iterator[_Step]:
    batch: list[tuple[Weight, torch.Tensor]] = []
    size = 0
    for weight, flat in waiting:
        if batch and size + weight.nbytes > buffer_bytes:
            yield _together(batch)
            batch, size = [], 0
        ranges = direct_ranges(weight)
        if weight.nbytes > buffer_bytes and ranges is not None:
            yield from _windows(flat, ranges, weight.nbytes, buffer_bytes)
            continue
        batch.append((weight, flat))
        size += weight.nbytes
    if batch:
        yield _together(batch)


def _together(batch: Sequence[tuple[Weight, torch.Tensor]]) -> _Step:
    layout = lay_out([weight for weight, _ in batch])
    offsets = {field.weight.name: field.offset for field in layout.fields}
    return _Step(recipe_of(layout), layout.nbytes, tuple((flat, offsets[weight.name]) for weight, flat in batch))


def _windows(flat: torch.Tensor, ranges: Sequence[Range], nbytes: int, buffer_bytes: int) -> Iterator[_Step]:
    """A weight larger than the buffer, part by part."""
    for start in range(0, nbytes, buffer_bytes):
        end = min(nbytes, start + buffer_bytes)
        inside = [
            Range(
                each.path,
                each.offset + max(0, start - each.at),
                min(end, each.at + each.nbytes) - max(start, each.at),
                max(start, each.at) - start,
            )
            for each in ranges
            if each.at < end and each.at + each.nbytes > start
        ]
        yield _Step(Recipe(tuple(merge(inside)), ()), end - start, ((flat[start:end], 0),))


def _run(steps: Sequence[_Step], backend: Backend, readers: Readers, report: Callable[[int], None], *, limit_bytes: int) -> None:
    size = max(step.nbytes for step in steps)
    buffers = [host_buffer(backend, size) for _ in range(2 if len(steps) > 1 and 2 * size <= limit_bytes else 1)]
    reading: Reading | None = None
    try:
        for index, step in enumerate(steps):
            buffer = buffers[index % len(buffers)]
            reading = reading or readers.start(step.recipe, buffer[: step.nbytes])
            reading.wait()
            reading = None
            if len(buffers) > 1 and index + 1 < len(steps):
                following = steps[index + 1]
                reading = readers.start(following.recipe, buffers[(index + 1) % 2][: following.nbytes])
            for flat, offset in step.copies:
                backend.copy(flat, buffer[offset : offset + flat.numel()])
            report(step.nbytes)
    finally:
        if reading is not None:
            reading.settle()  # readers must not write into a buffer that is given back


def host_buffer(backend: Backend, nbytes: int) -> torch.Tensor:
    """Host memory to copy to a device from. A budget for what lives on the CPU does not bind it: `offload.host_memory` does."""
    try:
        return backend.pinned_allocate(nbytes).tensor
    except OutOfMemoryError:
        return torch.empty(nbytes, dtype=torch.uint8)


def bind_residents(residents: Sequence[Resident], placed: Mapping[tuple[str, Device], torch.Tensor]) -> None:
    """Show the placed weights in the module tree; the places of one copy share one parameter, so ties stay ties."""
    for resident in residents:
        tensor = placed[resident.weight.name, resident.device]
        before = resident.spots[0].table[resident.spots[0].key]
        if resident.weight.kind == "parameter" and not isinstance(tensor, nn.Parameter):
            wants_gradient = before is not None and before.requires_grad and tensor.is_floating_point()
            tensor = nn.Parameter(tensor, requires_grad=wants_gradient)
        for spot in resident.spots:
            spot.table[spot.key] = tensor
