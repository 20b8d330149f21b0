"""What a streamed model counts while it runs."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Counters", "Resource", "Stats", "binding", "bytes_from_disk"]

Resource = Literal["disk", "host", "copy", "compute"]

_BARELY = 0.05
"""Of a pass: who waits less than this was not held up."""


@dataclass(frozen=True)
class Stats:
    """One look at the counters. Bytes are bytes, seconds are of the wall clock."""

    resident_bytes: Mapping[int | str, int]
    """Weights that stay, by device as a device map names it; on `cpu` those that are mapped count too."""
    streamed_home_bytes: Mapping[int | str, int]
    """Weights that are streamed, by home: `cpu` or `disk`."""
    slot_bytes: Mapping[int | str, int]
    """Slots by executing accelerator, and tied weights of several streamed blocks, which are kept beside
    them: what the plan counts in the device's budget."""
    mapped_bytes: int
    """Pages of files that may be in memory for blocks on disk that the CPU executes. They are the system's
    cache, which takes them back whenever it needs room: no budget counts them, `offload.host_memory` bounds
    them."""
    host_slot_bytes: int
    """Slots in host memory for those of such blocks that change on their way (another dtype, a packed
    layout): held, within `offload.host_memory`."""
    ring_bytes: int
    """Host memory that blocks go through on their way to accelerators."""
    ring_is_pinned: bool
    """Whether devices fetch from there by themselves."""
    streamed_bytes: int
    """Bytes brought into slots since the model was loaded."""
    staged_bytes: int
    """Of these, what went through the ring."""
    file_bytes: int
    """Bytes asked of files since the model was loaded, gaps between tensors included; the system's cache may
    have given them."""
    disk_bytes: int | None
    """Bytes that disks have given to this process since then, whatever it read; None where the system does
    not say."""
    fetched_bytes: int
    """Bytes read for weights that were used without their block's forward."""
    hits: int
    """Blocks that were in their slot, or on the way there, when they were called."""
    misses: int
    """Blocks that nobody had asked for when they were called."""
    order_misses: int
    """Calls in another order than recorded."""
    given_away: int
    """Slots that were replaced, because a weight of theirs was kept beyond its block's forward."""
    stalls: int
    """Calls that waited for their bytes."""
    stall_seconds: float
    stall_seconds_by_cause: Mapping[str, float]
    """`disk`: reads; `host`: copies from pageable into pinned memory; `copy`: copies to the device, queueing
    for them included."""
    passes: int
    """Completed forwards of the whole model."""
    last_pass_seconds: float | None
    last_pass_bound_by: Resource | None
    """What the last pass waited for most; `compute` where it waited for less than a twentieth of its time;
    None before the first."""
    predicted_seconds: float | None
    """What the plan expects of a pass, where it knows the machine."""
    bound_seconds: float | None
    """What no placement could beat on that machine."""


@dataclass
class Counters:
    """The figures that change, added to from several threads."""

    streamed_bytes: int = 0
    staged_bytes: int = 0
    fetched_bytes: int = 0
    hits: int = 0
    misses: int = 0
    order_misses: int = 0
    given_away: int = 0
    stalls: int = 0
    stall_seconds: float = 0.0
    stalls_by_cause: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    last_pass_seconds: float | None = None
    before_pass: dict[str, float] = field(default_factory=dict)
    """`stalls_by_cause` when the last pass began."""
    # Looked up when it is called.
    disk_bytes_before: int | None = field(default_factory=lambda: bytes_from_disk())  # noqa: PLW0108
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, streamed: int = 0, staged: int = 0, fetched: int = 0) -> None:
        """Count bytes that were moved."""
        with self.lock:
            self.streamed_bytes += streamed
            self.staged_bytes += staged
            self.fetched_bytes += fetched

    def stall(self, seconds: float, causes: Mapping[str, float]) -> None:
        """Count a wait for bytes, and what it was for."""
        with self.lock:
            self.stalls += 1
            self.stall_seconds += seconds
            for cause, share in causes.items():
                self.stalls_by_cause[cause] = self.stalls_by_cause.get(cause, 0.0) + share

    def begin_pass(self) -> None:
        """Begin a forward of the whole model."""
        with self.lock:
            self.before_pass = dict(self.stalls_by_cause)

    def end_pass(self, seconds: float) -> None:
        """End a forward of the whole model that succeeded."""
        with self.lock:
            self.passes += 1
            self.last_pass_seconds = seconds

    @property
    def disk_bytes(self) -> int | None:
        """What disks have given to this process since these counters began."""
        now = bytes_from_disk()
        return None if now is None or self.disk_bytes_before is None else now - self.disk_bytes_before


def binding(counters: Counters) -> Resource | None:
    """Return which resource the last pass waited for most."""
    if counters.last_pass_seconds is None:
        return None
    with counters.lock:
        waited = {
            cause: seconds - counters.before_pass.get(cause, 0.0)
            for cause, seconds in counters.stalls_by_cause.items()
        }
    if sum(waited.values()) < _BARELY * counters.last_pass_seconds:
        return "compute"
    most = max(waited, key=lambda cause: waited[cause])
    return "disk" if most == "disk" else "host" if most == "host" else "copy"


def bytes_from_disk() -> int | None:
    """Return what disks have given to this process so far, read-ahead included.

    None where the system does not say (not Linux, a sandbox).
    """
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("read_bytes:")]
    return found[0] if found else None
