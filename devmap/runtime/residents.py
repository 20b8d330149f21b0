"""Loading the weights that stay.

Each byte is read once, straight to its device, through a little host memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from devmap.devices.cpu import pageable
from devmap.devices.registry import backend_for
from devmap.runtime.storage.chunks import parts_of
from devmap.runtime.storage.homes import mapped
from devmap.runtime.storage.page_cache import can_populate
from devmap.runtime.storage.read_requests import Recipe, direct_ranges, merge, recipe_of
from devmap.runtime.storage.weights import assembled, flat_bytes, lay_out
from devmap.runtime.streaming.ring import host_slab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.devices.backend import Backend
    from devmap.runtime.storage.module_scan import TensorLocation
    from devmap.runtime.storage.readers import PendingRead, Readers
    from devmap.runtime.storage.weights import Weight

__all__ = ["Progress", "Resident", "bind_residents", "load_residents", "silent"]


_PAGES_BYTES = 32 << 20
"""Pages that one thread brings in at a time; nothing is copied."""


@dataclass(frozen=True, slots=True)
class Resident:
    """A weight that stays on a device, and the places that show it."""

    weight: Weight
    device: Device
    locations: tuple[TensorLocation, ...]


@dataclass(frozen=True)
class _Step:
    """One filling of the host buffer: what is read into it, and which of its bytes go where."""

    recipe: Recipe
    nbytes: int
    copies: tuple[tuple[torch.Tensor, int], ...]
    """Flat bytes on the device, and where they start in the buffer."""


def load_residents(
    residents: Sequence[Resident],
    readers: Readers,
    *,
    buffer_bytes: int,
    limit_bytes: int,
    report: Callable[[int], None],
) -> Mapping[tuple[str, Device], torch.Tensor]:
    """Bring every resident weight to its device; `report(nbytes)` is told of each part that arrived.

    Two host buffers of `buffer_bytes` take turns: one is read into while the other is copied from. A weight
    that is reshaped on its way and is larger than a buffer makes the buffers larger, within `limit_bytes` for
    both.

    Raises:
        OutOfMemoryError: when a device has no room.
        StreamError: when a weight cannot be read.
    """
    placed: dict[tuple[str, Device], torch.Tensor] = {}
    by_device: dict[Device, list[tuple[Weight, torch.Tensor]]] = {}
    on_pages: list[Weight] = []
    to_host: list[tuple[Weight, torch.Tensor]] = []
    backends = {device: backend_for(device) for device in {resident.device for resident in residents}}
    packed = [resident for resident in residents if resident.weight.packing is not None]
    for resident in chain.from_iterable(map(_plain, residents)):
        weight, device = resident.weight, resident.device
        backend = backends[device]
        key = (weight.name, device)
        ready = _in_place(weight, backend, readers)
        if ready is not None:
            placed[key] = ready
            if not weight.has_value:
                on_pages.append(weight)
            else:
                report(weight.nbytes)
            continue
        on_host = not weight.has_value and not device.is_accelerator
        flat = pageable(weight.nbytes) if on_host else backend.allocate(weight.nbytes)
        placed[key] = flat.view(weight.dtype).view(weight.shape)
        if weight.has_value:
            backend.copy(flat, flat_bytes(weight.value()))
            report(weight.nbytes)
        elif on_host:
            to_host.append((weight, flat))
        else:
            by_device.setdefault(device, []).append((weight, flat))
    for device, waiting in by_device.items():
        _run(
            list(_steps(_in_file_order(waiting), buffer_bytes)),
            backends[device],
            readers,
            report,
            limit_bytes=limit_bytes,
        )
    _fill(
        [
            (weight, readers.start(recipe_of(lay_out([weight])), flat))
            for weight, flat in _in_file_order(to_host)
        ],
        report,
    )
    _bring_pages(on_pages, readers, report)
    for resident in packed:
        weight, device = resident.weight, resident.device
        parts = {part.name: placed.pop((part.name, device)) for part in weight.parts}
        placed[weight.name, device] = assembled(parts, [weight])[weight.name]
    return placed


def _plain(resident: Resident) -> Iterator[Resident]:
    """Yield the resident, or one for each of the parts of a quantised parameter."""
    for weight in resident.weight.plain:
        yield resident if weight is resident.weight else Resident(weight, resident.device, ())


def _in_file_order(waiting: Sequence[tuple[Weight, torch.Tensor]]) -> list[tuple[Weight, torch.Tensor]]:
    return sorted(waiting, key=lambda each: (str(each[0].stored[0][0].file), each[0].stored[0][0].offset))


def _fill(under_way: Sequence[tuple[Weight, PendingRead]], report: Callable[[int], None]) -> None:
    """Wait for weights that several threads read, and change, straight into the memory where they stay."""
    try:
        for weight, reading in under_way:
            reading.wait()
            report(weight.nbytes)
    finally:
        for _, reading in under_way:
            reading.settle()


def _bring_pages(weights: Sequence[Weight], readers: Readers, report: Callable[[int], None]) -> None:
    """Read what is mapped by several threads now.

    A kernel that met the pages first would wait for one small read after another.
    """
    if not can_populate():
        report(sum(weight.nbytes for weight in weights))
        return
    ranges = [each for weight in weights for each in direct_ranges(weight) or ()]
    requests = list(merge(ranges, request_bytes=_PAGES_BYTES))
    pages = {request.path: readers.files.pages(request.path, streamed=False) for request in requests}
    under_way = [
        readers.populate(Recipe((request,), ()), pages, again=False, after=None) for request in requests
    ]
    try:
        for request, reading in zip(requests, under_way, strict=True):
            reading.wait()
            report(sum(nbytes for at, nbytes in request.parts if at is not None))
    finally:
        for reading in under_way:
            reading.settle()


def _in_place(weight: Weight, backend: Backend, readers: Readers) -> torch.Tensor | None:
    """Return the weight where no copy is needed; None where it has to be moved."""
    live = weight.live
    if live is not None:
        return live if live.device == backend.torch_device and live.dtype == weight.dtype else None
    return None if weight.has_value or backend.device.is_accelerator else mapped(weight, readers.files)


def _steps(waiting: Sequence[tuple[Weight, torch.Tensor]], buffer_bytes: int) -> Iterator[_Step]:
    batch: list[tuple[Weight, torch.Tensor]] = []
    size = 0
    for weight, flat in waiting:
        if batch and size + weight.nbytes > buffer_bytes:
            yield _together(batch)
            batch, size = [], 0
        if weight.nbytes > buffer_bytes:
            for part in parts_of(lay_out([weight]), buffer_bytes):
                yield _Step(part.recipe, part.nbytes, ((flat[part.offset : part.offset + part.nbytes], 0),))
            continue
        batch.append((weight, flat))
        size += weight.nbytes
    if batch:
        yield _together(batch)


def _together(batch: Sequence[tuple[Weight, torch.Tensor]]) -> _Step:
    layout = lay_out([weight for weight, _ in batch])
    offsets = {field.weight.name: field.offset for field in layout.fields}
    return _Step(
        recipe_of(layout), layout.nbytes, tuple((flat, offsets[weight.name]) for weight, flat in batch)
    )


def _run(
    steps: Sequence[_Step],
    backend: Backend,
    readers: Readers,
    report: Callable[[int], None],
    *,
    limit_bytes: int,
) -> None:
    size = max(step.nbytes for step in steps)
    buffers = [
        host_slab(backend, size).tensor for _ in range(2 if len(steps) > 1 and 2 * size <= limit_bytes else 1)
    ]
    reading: PendingRead | None = None
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


def bind_residents(residents: Sequence[Resident], placed: Mapping[tuple[str, Device], torch.Tensor]) -> None:
    """Show the placed weights in the module tree.

    The places of one copy share one parameter, so ties stay ties.
    """
    for resident in residents:
        tensor = placed[resident.weight.name, resident.device]
        before = resident.locations[0].table[resident.locations[0].key]
        if resident.weight.kind == "parameter" and not isinstance(tensor, nn.Parameter):
            wants_gradient = before is not None and before.requires_grad and tensor.is_floating_point()
            tensor = nn.Parameter(tensor, requires_grad=wants_gradient)
        for location in resident.locations:
            location.table[location.key] = tensor
        if resident.weight.packing is not None:
            resident.weight.packing.attach(tensor)


# How loading says how far it is.


class Progress(Protocol):
    """Called now and then while a model is loaded, always from the loading thread.

    The last call has `done_bytes == total_bytes`.
    """

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Report the bytes in place so far, of all bytes that have to be brought there."""


def silent(done_bytes: int, total_bytes: int) -> None:
    """Says nothing."""
