"""The ring of a model: host slabs within the budget, pinned where that helps."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

from devmap.devices.backend import HostSlab
from devmap.devices.host_memory import host_memory
from devmap.devices.registry import backend_for
from devmap.errors import OutOfMemoryError
from devmap.runtime.budget import ring_shape
from devmap.runtime.homes import DiskHome
from devmap.runtime.parts import least_part_bytes
from devmap.runtime.ring import Ring, Staged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.devices.backend import Backend
    from devmap.runtime.readers import Readers
    from devmap.runtime.units import Unit

__all__ = ["host_slab", "make_ring"]


def make_ring(units: Sequence[Unit], budget_bytes: int, readers: Readers) -> Ring | None:
    """A ring for the blocks that execute on accelerators, which are cut to its slabs; None where nothing goes through it.

    Blocks on disk always do. Blocks in host memory do where the device can fetch from pinned memory by itself: not on
    unified memory, and not where the system refuses to pin, which is said once.
    """
    on_disk = [unit for unit in units if isinstance(unit.home, DiskHome)]
    backend = backend_for(units[0].device) if units else None
    if backend is None or not (backend.pins or on_disk):
        return None
    through = list(units) if backend.pins else on_disk
    slabs = _slabs(backend, through, _within(budget_bytes, through, backend, readers))
    refusal = next((slab.reason for slab in slabs if not slab.is_pinned), "")
    if refusal and backend.pins:
        warnings.warn(f"blocks go to {backend.torch_device} from pageable memory, which is slower: {refusal}", stacklevel=2)
        through = on_disk  # nothing is won by copying the others twice
    if not through:
        return None
    for unit in through:
        unit.home = unit.home.cut(slabs[0].tensor.numel())
    return Ring([Staged(slab.tensor) for slab in slabs], through, is_pinned=all(slab.is_pinned for slab in slabs))


def _within(budget_bytes: int, units: Sequence[Unit], backend: Backend, readers: Readers) -> int:
    """What slabs may take: less what readers need where bytes change on their way; of pinned memory no more than half of all there is."""
    changes = any(unit.home.recipe.conversions for unit in units if isinstance(unit.home, DiskHome))
    if changes or readers.files.is_direct:
        budget_bytes = max(budget_bytes // 2, budget_bytes - readers.scratch_bytes)
    return min(budget_bytes, host_memory().total_bytes // 2) if backend.pins else budget_bytes


def _slabs(backend: Backend, units: Sequence[Unit], budget_bytes: int) -> list[HostSlab]:
    largest = max(unit.layout.nbytes for unit in units)
    least = max((least_part_bytes(unit.layout) for unit in units if isinstance(unit.home, DiskHome)), default=0)
    size, count = ring_shape(largest, budget_bytes, backend.pinned_bytes)
    if size < least:
        size, count = least, max(1, min(count, budget_bytes // max(1, backend.pinned_bytes(least))))
    return [host_slab(backend, size) for _ in range(count)]


def host_slab(backend: Backend, nbytes: int) -> HostSlab:
    """Host memory to copy to a device from. A budget for what lives on the CPU does not bind it: `offload.host_memory` does."""
    try:
        return backend.pinned_allocate(nbytes)
    except OutOfMemoryError:
        return HostSlab(torch.empty(nbytes, dtype=torch.uint8), is_pinned=backend.pins)
