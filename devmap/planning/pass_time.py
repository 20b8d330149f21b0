"""The predicted time of one forward pass of a plan, and what binds it.

The schedule is the runtime's (design section 6), played through with the costs of `pass_costs`: blocks are computed one after another,
each accelerator has one copy engine and one or two slots, the disk is read in order into a ring of host slots, and the next
pass begins where this one ends, its first blocks prefetched. The prediction is the time from the end of one pass to the end of the
next once that has settled, and never below what any single resource is busy for.

For an accelerator with two slots whose streamed blocks are spread evenly this comes to max(compute, copies), and with one slot to
their sum, added up over the accelerators in the order in which they take turns.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK, Device
from devmap.planning.pass_costs import FEMTOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.planning.pass_costs import PassCosts, PassShape
    from devmap.planning.problem import Streaming

__all__ = ["PassTime", "format_seconds", "pass_time", "time_sentence"]

_HOST_SLOTS = 4
"""Blocks that the runtime reads from disk ahead of their copies."""
_PASSES = 4
_SETTLED = 2
"""Passes after which the schedule repeats itself, or nearly so; the rest are averaged."""


@dataclass(frozen=True)
class PassTime:
    """What one pass takes, in femtoseconds."""

    latency: int
    """From the end of one pass to the end of the next, one request at a time."""
    stage: int
    """Of the slowest stage, when passes of several requests follow each other through the devices."""
    busy: Mapping[tuple[str, Device], int] = field(default_factory=dict)
    """For how long each resource works in one pass: `compute`, `copies` and `memory` by device, `reads` of the disk."""

    @property
    def seconds(self) -> float:
        """The latency in seconds."""
        return self.latency / FEMTOSECONDS

    @property
    def binding(self) -> tuple[str, Device]:
        """The resource that is busy for the longest."""
        return max(self.busy, key=lambda key: (self.busy[key], key[1].is_accelerator, key[0] == "copies"), default=("compute", CPU))


def pass_time(costs: PassCosts, homes: Sequence[Device], streaming: Streaming) -> PassTime | None:
    """The time of a pass with these homes and executing devices; None where a rate that it needs is not known. Linear in atoms."""
    used = set(streaming.executes)
    streams = {device for home, device in zip(homes, streaming.executes, strict=True) if device != home and device.is_accelerator}
    if not used <= costs.compute.keys() or not streams <= costs.copy.keys() or (DISK in homes and costs.disk is None):
        return None
    busy, steps, tail = _steps(costs, homes, streaming.executes)
    counts = {device: slots.count for device, slots in streaming.slots.items()}
    latency = max([_period(steps, tail, counts), *(time for (what, _), time in busy.items() if what != "compute")])
    return PassTime(latency, _slowest_stage(busy, counts), busy)


def time_sentence(time: PassTime, shape: PassShape) -> str:
    """What binds a pass, for a plan's reasons."""
    what, device = time.binding
    name = f"device {device}" if device.is_accelerator else "the CPU"
    binds = {
        "compute": f"reading weights and computing on {name}",
        "copies": f"host-to-device copies to {name}",
        "memory": "reads from host memory",
        "reads": "reads from disk",
    }[what]
    return f"A pass of {shape} takes about {format_seconds(time.latency)}, bound by {binds}."


def format_seconds(femtoseconds: int) -> str:
    """A time for people, three digits.

    >>> format_seconds(118_240_000_000_000), format_seconds(2_500_000_000_000_000), format_seconds(3_100_000_000)
    ('118 ms', '2.5 s', '3.1 us')
    """
    for unit, scale in (("s", FEMTOSECONDS), ("ms", 10**12), ("us", 10**9)):
        if femtoseconds >= scale:
            return f"{float(f'{femtoseconds / scale:.3g}'):,g} {unit}"
    return f"{femtoseconds / 10**6:.3g} ns"


@dataclass(frozen=True, slots=True)
class _Step:
    """One streamed atom: what is computed before it, then its read, its copy and its own compute, in femtoseconds."""

    before: int
    device: Device
    read: int
    copy: int
    compute: int


def _steps(costs: PassCosts, homes: Sequence[Device], executes: Sequence[Device]) -> tuple[dict[tuple[str, Device], int], list[_Step], int]:
    """How long each resource is busy, the streamed atoms in order, and what is computed after the last of them."""
    busy: dict[tuple[str, Device], int] = {}
    steps: list[_Step] = []
    chain = 0
    previous: Device | None = None
    for at, (home, device) in enumerate(zip(homes, executes, strict=True)):
        if previous is not None and device != previous:
            chain += max(costs.boundary.get(previous, 0), costs.boundary.get(device, 0))
        previous = device
        compute = costs.compute[device][at]
        busy["compute", device] = busy.get(("compute", device), 0) + compute
        memory = costs.host_compute[at] if device == CPU else costs.host_copy[at] if home != device else 0
        busy["memory", CPU] = busy.get(("memory", CPU), 0) + memory
        if home == device:
            chain += compute
            continue
        read = costs.disk[at] if home == DISK and costs.disk is not None else 0
        copy = costs.copy[device][at] if device.is_accelerator else 0
        busy["reads", DISK] = busy.get(("reads", DISK), 0) + read
        if copy:
            busy["copies", device] = busy.get(("copies", device), 0) + copy
        steps.append(_Step(chain, device, read, copy, compute))
        chain = 0
    return busy, steps, chain


def _period(steps: Sequence[_Step], tail: int, counts: Mapping[Device, int]) -> int:
    """The time from the end of one pass to the end of the next, by playing a few of them through."""
    if not steps:
        return tail
    slots = {step.device: deque([0] * counts.get(step.device, 1)) for step in steps}
    engine = dict.fromkeys(slots, 0)
    ring = deque([0] * _HOST_SLOTS)
    disk = now = 0
    ends = []
    for _ in range(_PASSES):
        for step in steps:
            start = max(engine[step.device], slots[step.device].popleft())
            if step.read:
                disk = max(disk, ring.popleft()) + step.read
                start = max(start, disk)
            engine[step.device] = start + step.copy
            if step.read:
                ring.append(engine[step.device])
            now = max(now + step.before, engine[step.device]) + step.compute
            slots[step.device].append(now)
        now += tail
        ends.append(now)
    return -(-(ends[-1] - ends[_SETTLED - 1]) // (_PASSES - _SETTLED))


def _slowest_stage(busy: Mapping[tuple[str, Device], int], counts: Mapping[Device, int]) -> int:
    """The longest of all resources; with one slot an accelerator's copies and its compute take turns."""
    serial = [
        time + busy.get(("compute", device), 0) for (what, device), time in busy.items() if what == "copies" and counts.get(device, 1) == 1
    ]
    return max([*busy.values(), *serial], default=0)
