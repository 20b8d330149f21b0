"""What a streamed model counts while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Counters", "Stats"]


@dataclass(frozen=True)
class Stats:
    """One look at the counters. Bytes are bytes, seconds are of the wall clock."""

    resident_bytes: Mapping[int | str, int]
    """Weights that stay, by device as a device map names it; on `cpu` those that are mapped count too."""
    streamed_home_bytes: Mapping[int | str, int]
    """Weights that are streamed, by home: `cpu` or `disk`."""
    slot_bytes: Mapping[int | str, int]
    """Slots by executing device."""
    ring_bytes: int
    """Host memory that disk reads go through on their way to accelerators."""
    streamed_bytes: int
    """Bytes brought into slots since the model was loaded."""
    disk_bytes: int
    """Of these, read from files, gaps between tensors included."""
    fetched_bytes: int
    """Bytes read for weights that were used without their block's forward."""
    hits: int
    """Blocks that were in their slot, or on the way there, when they were called."""
    misses: int
    """Blocks that nobody had asked for when they were called."""
    order_misses: int
    """Calls in another order than recorded."""
    stalls: int
    """Calls that waited for their bytes."""
    stall_seconds: float
    passes: int
    """Completed forwards of the whole model."""
    last_pass_seconds: float | None
    predicted_seconds: float | None
    """What the plan expects of a pass, where it knows the machine."""
    bound_seconds: float | None
    """What no placement could beat on that machine."""


@dataclass
class Counters:
    """The figures that change, added to from several threads."""

    streamed_bytes: int = 0
    disk_bytes: int = 0
    fetched_bytes: int = 0
    hits: int = 0
    misses: int = 0
    order_misses: int = 0
    stalls: int = 0
    stall_seconds: float = 0.0
    passes: int = 0
    last_pass_seconds: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, streamed: int = 0, disk: int = 0, fetched: int = 0) -> None:
        """Count bytes that were moved."""
        with self.lock:
            self.streamed_bytes += streamed
            self.disk_bytes += disk
            self.fetched_bytes += fetched
