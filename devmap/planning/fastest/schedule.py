"""The predicted time of one forward pass of a plan, and what binds it.

The schedule is the runtime's (design section 6), played through with the costs of `pass_costs`: blocks are
computed one after another, each accelerator has one copy engine and one or two slots, the disk is read in
order into a ring of host slots, and the next pass begins where this one ends, its first blocks prefetched.
The prediction is the time from the end of one pass to the end of the next once that has settled, and never
below what any single resource is busy for.

For an accelerator with two slots whose streamed blocks are spread evenly this comes to max(compute, copies),
and with one slot to their sum, added up over the accelerators in the order in which they take turns.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, Device, device_words
from devmap.config.values.duration import format_duration
from devmap.planning.fastest.costs import FEMTOSECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.planning.fastest.costs import PassCosts, PassShape
    from devmap.planning.problem.model import Streaming

__all__ = ["HOST_SLOTS", "PassTime", "format_seconds", "pass_time", "time_sentence"]

HOST_SLOTS = 4
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
    """For how long each resource works in one pass: `compute`, `copies` and `memory` by device, `reads` of
    the disk."""

    @property
    def seconds(self) -> float:
        """The latency in seconds."""
        return self.latency / FEMTOSECONDS

    @property
    def binding(self) -> tuple[str, Device]:
        """The resource that is busy for the longest."""
        return max(
            self.busy,
            key=lambda key: (self.busy[key], key[1].is_accelerator, key[0] == "copies"),
            default=("compute", CPU),
        )


def pass_time(costs: PassCosts, homes: Sequence[Device], streaming: Streaming) -> PassTime | None:
    """Return the time of a pass with these homes and executing devices.

    None where a rate that it needs is not known. Linear in atoms.
    """
    runs = _runs(homes, streaming.execution_devices)
    used = {device for _, device, _, _ in runs}
    streams = {device for home, device, _, _ in runs if device is not home and device.is_accelerator}
    on_disk = any(home == DISK for home, _, _, _ in runs)
    if (
        not used <= costs.compute.keys()
        or not streams <= costs.copy.keys()
        or (on_disk and costs.disk is None)
    ):
        return None
    busy, steps, tail = _steps(costs, runs)
    counts = {device: slots.count for device, slots in streaming.slots.items()}
    latency = max(
        [_period(steps, tail, counts), *(time for (what, _), time in busy.items() if what != "compute")]
    )
    return PassTime(latency, _slowest_stage(busy, counts), busy)


def time_sentence(time: PassTime, shape: PassShape) -> str:
    """Return what binds a pass, for a plan's reasons."""
    what, device = time.binding
    name = device_words(device)
    binds = {
        "compute": f"reading weights and computing on {name}",
        "copies": f"host-to-device copies to {name}",
        "memory": "reads from host memory",
        "reads": "reads from disk",
    }[what]
    return f"A pass of {shape} takes about {format_seconds(time.latency)}, bound by {binds}."


def format_seconds(femtoseconds: int) -> str:
    """Return a time for people, three digits.

    >>> format_seconds(118_240_000_000_000), format_seconds(2_500_000_000_000_000)
    ('118 ms', '2.5 s')
    >>> format_seconds(3_100_000_000)
    '3.1 us'
    """
    return format_duration(femtoseconds / FEMTOSECONDS)


_Run = tuple[Device, Device, int, int]
"""Neighbouring atoms that live and are executed on the same devices: both devices, start and end."""
_Step = tuple[int, Device, int, int, int]
"""One streamed atom: what is computed before it, its device, its read, its copy and its own compute, in
femtoseconds."""


def _runs(homes: Sequence[Device], execution_devices: Sequence[Device]) -> list[_Run]:
    """Return all atoms in runs. Devices are told apart by identity, as everywhere in planning."""
    found: list[_Run] = []
    start = 0
    for end in range(1, len(homes) + 1):
        if (
            end == len(homes)
            or homes[end] is not homes[start]
            or execution_devices[end] is not execution_devices[start]
        ):
            found.append((homes[start], execution_devices[start], start, end))
            start = end
    return found


def _steps(costs: PassCosts, runs: Sequence[_Run]) -> tuple[dict[tuple[str, Device], int], list[_Step], int]:
    """Return how long each resource is busy, the streamed atoms in order.

    And what is computed after the last of them.
    """
    pairs = {(id(home), id(device)): (home, device) for home, device, _, _ in runs}
    served = {key: _ResourceTotals(costs, home, device) for key, (home, device) in pairs.items()}
    steps: list[_Step] = []
    waiting = 0
    previous: Device | None = None
    for home, device, start, end in runs:
        if previous is not None and device is not previous:
            waiting += max(costs.boundary.get(previous, 0), costs.boundary.get(device, 0))
        previous = device
        how = served[id(home), id(device)]
        how.compute_time += (time := sum(how.compute[start:end]))
        how.memory_time += sum(how.memory[start:end])
        if home is device:
            waiting += time
            continue
        read, copy = how.read[start:end], how.copy[start:end]
        how.read_time += sum(read)
        how.copy_time += sum(copy)
        steps += zip(
            (waiting, *(0,) * (end - start - 1)),
            (device,) * (end - start),
            read,
            copy,
            how.compute[start:end],
            strict=True,
        )
        waiting = 0
    busy: Counter[tuple[str, Device]] = Counter()
    for how in served.values():
        busy["compute", how.device] += how.compute_time
        busy["memory", CPU] += how.memory_time
        busy["reads", DISK] += how.read_time
        if how.copy_time:
            busy["copies", how.device] += how.copy_time
    return dict(busy), steps, waiting


class _ResourceTotals:
    """What atoms that live on one device and are executed on another take of every resource.

    And what they took so far.
    """

    def __init__(self, costs: PassCosts, home: Device, device: Device) -> None:
        nothing = (0,) * len(costs.host_copy)
        streams = home is not device
        self.device = device
        self.compute = costs.compute[device]
        self.memory = costs.host_compute if device == CPU else costs.host_copy if streams else nothing
        self.read = costs.disk if home == DISK and costs.disk is not None else nothing
        self.copy = costs.copy[device] if streams and device.is_accelerator else nothing
        self.compute_time = self.memory_time = self.read_time = self.copy_time = 0


def _period(steps: Sequence[_Step], tail: int, counts: Mapping[Device, int]) -> int:
    """Return the time from the end of one pass to the end of the next, by playing a few of them through."""
    if not steps:
        return tail
    places = {device: place for place, device in enumerate(dict.fromkeys([step[1] for step in steps]))}
    line = [(before, places[device], read, copy, compute) for before, device, read, copy, compute in steps]
    slots = [deque([0] * counts.get(device, 1)) for device in places]
    engine = [0] * len(places)
    ring = deque([0] * HOST_SLOTS)
    disk = now = 0
    ends: list[int] = []
    state: tuple[object, ...] = ()
    for _ in range(_PASSES):
        for before, place, read, copy, compute in line:
            free = slots[place].popleft()
            start = engine[place]
            start = max(start, free)
            if read:
                disk = max(disk, ring.popleft()) + read
                start = max(start, disk)
            start += copy
            engine[place] = start
            if read:
                ring.append(start)
            now += before
            now = max(now, start)
            now += compute
            slots[place].append(now)
        now += tail
        ends.append(now)
        before_it, state = (
            state,
            (disk - now, *[at - now for at in (*engine, *ring, *chain.from_iterable(slots))]),
        )
        if state == before_it:
            return ends[-1] - ends[-2]  # every pass from here on repeats this one
    return -(-(ends[-1] - ends[_SETTLED - 1]) // (_PASSES - _SETTLED))


def _slowest_stage(busy: Mapping[tuple[str, Device], int], counts: Mapping[Device, int]) -> int:
    """Return the longest of all resources.

    With one slot an accelerator's copies and its compute take turns.
    """
    serial = [
        time + busy.get(("compute", device), 0)
        for (what, device), time in busy.items()
        if what == "copies" and counts.get(device, 1) == 1
    ]
    return max([*busy.values(), *serial], default=0)
