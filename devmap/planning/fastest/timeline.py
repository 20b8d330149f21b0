"""When each resource works in one settled pass: what the predicted schedule looks like, for a picture of it.

`schedule.pass_time` plays the same schedule for its length alone, many thousand times in a search; this
module plays it once, and keeps every stretch of work with its beginning and its end. A test holds that both
give the same length.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from devmap.config.values.device import CPU, DISK
from devmap.planning.fastest.costs import FEMTOSECONDS
from devmap.planning.fastest.schedule import HOST_SLOTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.fastest.costs import PassCosts
    from devmap.planning.problem.model import Streaming

__all__ = ["Interval", "Timeline", "timeline"]

Resource = Literal["compute", "copies", "reads"]

_PASSES = 4
"""As many as `schedule` plays before it takes the schedule for settled; the last one is kept."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of work on one resource, in seconds from the start of the pass.

    Below zero where work for this pass begins while the pass before it is still computing: that is prefetch.
    """

    resource: Resource
    device: Device
    """Which device computes or is copied to; the disk for reads."""
    start_seconds: float
    end_seconds: float
    first: int
    """The number of the first atom that it is for."""
    last: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """One pass: its length and what every resource does in it, ordered by start within a resource."""

    seconds: float
    intervals: tuple[Interval, ...]
    host_memory_seconds: float
    """For how long host memory is read in one pass, by the CPU's kernels and for copies. It has no lane:
    both read it at the same time. Where this is longer than `seconds`, it is what binds the predicted pass.
    """


def timeline(costs: PassCosts, homes: Sequence[Device], streaming: Streaming) -> Timeline | None:
    """Play a pass with these homes and executing devices, and keep its last repetition.

    Returns None where a rate that it needs is not known. Linear in atoms.
    """
    if not _rates_known(costs, homes, streaming.execution_devices):
        return None
    player = _Player(costs, {device: slots.count for device, slots in streaming.slots.items()})
    for _ in range(_PASSES):
        player.play(homes, streaming.execution_devices)
    return player.settled()


def _rates_known(costs: PassCosts, homes: Sequence[Device], execution_devices: Sequence[Device]) -> bool:
    pairs = set(zip(homes, execution_devices, strict=True))
    return all(
        device in costs.compute
        and (home == device or not device.is_accelerator or device in costs.copy)
        and (home != DISK or costs.disk is not None)
        for home, device in pairs
    )


class _Player:
    """The state of every engine between two atoms, in femtoseconds."""

    def __init__(self, costs: PassCosts, counts: Mapping[Device, int]) -> None:
        self.costs = costs
        self.counts = counts
        self.slots: dict[Device, deque[int]] = {}
        self.engine: dict[Device, int] = {}
        self.ring = deque([0] * HOST_SLOTS)
        self.disk = self.now = 0
        self.began = 0
        """When the pass that is played began: when the one before it ended."""
        self.work: list[tuple[Resource, Device, int, int, int, int]] = []
        self.memory = 0

    def play(self, homes: Sequence[Device], execution_devices: Sequence[Device]) -> None:
        """Play one pass after what was played before."""
        self.began, self.work, self.memory = self.now, [], 0
        previous: Device | None = None
        pairs = enumerate(zip(homes, execution_devices, strict=True))
        for (home, device), members in groupby(pairs, key=lambda pair: pair[1]):
            atoms = [at for at, _ in members]
            if device == CPU:
                self.memory += sum(self.costs.host_compute[at] for at in atoms)
            elif home != device:
                self.memory += sum(self.costs.host_copy[at] for at in atoms)
            if previous is not None and device != previous:
                # The activations cross from one device to another before anything is computed there.
                self.now += max(self.costs.boundary.get(previous, 0), self.costs.boundary.get(device, 0))
            previous = device
            if home == device:
                self._compute(
                    device, atoms[0], atoms[-1], sum(self.costs.compute[device][at] for at in atoms)
                )
            else:
                for at in atoms:
                    self._stream(home, device, at)

    def settled(self) -> Timeline:
        """Return the pass that was played last."""
        return Timeline(
            (self.now - self.began) / FEMTOSECONDS, tuple(self._intervals()), self.memory / FEMTOSECONDS
        )

    def _compute(self, device: Device, first: int, last: int, takes: int) -> None:
        self.work.append(("compute", device, self.now, self.now + takes, first, last))
        self.now += takes

    def _stream(self, home: Device, device: Device, at: int) -> None:
        """Read (from disk), copy (to an accelerator), then compute one atom.

        Each waits for the one before it.
        """
        queue = self.slots.setdefault(device, deque([0] * self.counts.get(device, 1)))
        ready = max(self.engine.get(device, 0), queue.popleft())
        read = self.costs.disk[at] if home == DISK and self.costs.disk is not None else 0
        if read:
            begins = max(self.disk, self.ring.popleft())
            self.disk = begins + read
            self.work.append(("reads", DISK, begins, self.disk, at, at))
            ready = max(ready, self.disk)
        copy = self.costs.copy[device][at] if device.is_accelerator else 0
        if copy:
            self.work.append(("copies", device, ready, ready + copy, at, at))
        self.engine[device] = ready + copy
        if read:
            self.ring.append(ready + copy)
        self.now = max(self.now, ready + copy)
        self._compute(device, at, at, self.costs.compute[device][at])
        queue.append(self.now)

    def _intervals(self) -> Iterator[Interval]:
        order: dict[Resource, int] = {"compute": 0, "copies": 1, "reads": 2}
        for resource, device, start, end, first, last in sorted(
            self.work, key=lambda one: (order[one[0]], one[1] == CPU, one[1], one[2])
        ):
            if end > start:
                yield Interval(
                    resource,
                    device,
                    (start - self.began) / FEMTOSECONDS,
                    (end - self.began) / FEMTOSECONDS,
                    first,
                    last,
                )
