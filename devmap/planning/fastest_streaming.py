"""Executing devices, slots and bytes of homes that were chosen by time: the CPU computes exactly what it is told to.

As everywhere, a streamed atom executes on the accelerator of its nearest resident predecessor (the first accelerator where there is
none). An atom that no slot of that device could hold is computed by the CPU.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.planning.problem import NO_LIMIT, Slots, Streaming, stretches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.config.device import Device
    from devmap.planning.problem import Problem

__all__ = ["is_within_budgets", "streamed"]


def streamed(problem: Problem, homes: Sequence[Device], in_place: frozenset[int], *, most_slots: int) -> Streaming:
    """Where these homes are executed when the CPU computes `in_place` (and all that is trained), and what that takes.

    Each device gets `most_slots` slots of the largest atom that streams there, and fewer where they do not fit beside its residents.
    """
    accelerators = problem.accelerators
    loads, limits = problem.loads, problem.limits
    executes: list[Device] = []
    queues: dict[Device, list[int]] = {}
    resident: dict[Device, int] = {}
    nearest = accelerators[0] if accelerators else CPU
    up_to = _up_to(loads.weight, loads.held, loads.run)
    for home, start, end in stretches(homes):
        if home.is_accelerator:
            nearest = home
            resident[home] = resident.get(home, 0) + up_to[end] - up_to[start]
            executes += [home] * (end - start)
            continue
        room = -1 if nearest is CPU else limits[nearest]
        stays = [at for at in range(start, end) if at in in_place or loads.slot[at] > room or not loads.frozen[at]]
        whole = [nearest] * (end - start)
        for at in stays:
            whole[at - start] = CPU
        executes += whole
        if home is CPU:
            resident[CPU] = resident.get(CPU, 0) + sum([loads.resident(at) for at in stays])
        elif stays:
            queues.setdefault(CPU, []).extend(stays)
        if len(stays) < end - start:
            skipped = set(stays)
            queues.setdefault(nearest, []).extend([at for at in range(start, end) if at not in skipped] if stays else range(start, end))
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    if CPU in executes:
        needs[CPU] = problem.activation_bytes
    for device, queue in queues.items():
        largest = max(queue, key=loads.slot.__getitem__)
        size = loads.slot[largest]
        beside = sum([problem.beside_bytes[at] for at in queue]) + needs.get(device, 0)
        room = limits.get(device, NO_LIMIT) - resident.get(device, 0) - beside
        count = most_slots if most_slots * size <= room else 1
        slots[device] = Slots(count, size, largest, len(queue))
        needs[device] = count * size + beside
    if CPU not in limits:
        needs.pop(CPU, None)
    chosen = frozenset(at for at, device in enumerate(executes) if device is CPU)
    return Streaming(tuple(executes), slots, needs, chosen)


def is_within_budgets(problem: Problem, homes: Sequence[Device], streaming: Streaming) -> bool:
    """Whether every device holds its residents, what streams there, and what the workload keeps; nothing trained on disk."""
    loads = problem.loads
    totals = dict(streaming.needs)
    up_to = _up_to(loads.weight, loads.held)
    for home, start, end in stretches(homes):
        if home is DISK and not all(loads.frozen[start:end]):
            return False
        totals[home] = totals.get(home, 0) + up_to[end] - up_to[start]
    if any(problem.beside_bytes):
        for at, (home, device) in enumerate(zip(homes, streaming.executes, strict=True)):
            totals[home] += loads.run[at] if home is device else -loads.buffers[at]
    return all(nbytes <= problem.limits[device] for device, nbytes in totals.items())


def _up_to(*amounts: Sequence[int]) -> list[int]:
    """Prefix sums over atoms of several amounts together."""
    some = [each for each in amounts if any(each)]
    return [0, *accumulate(some[0] if len(some) == 1 else map(sum, zip(*some, strict=True)) if some else (0,) * len(amounts[0]))]
