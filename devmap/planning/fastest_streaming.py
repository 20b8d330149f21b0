"""Executing devices, slots and bytes of homes that were chosen by time: the CPU computes exactly what it is told to.

As everywhere, a streamed atom executes on the accelerator of its nearest resident predecessor (the first accelerator where there is
none). An atom that no slot of that device could hold is computed by the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.planning.problem import Slots, Streaming

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
    loads = problem.loads
    executes: list[Device] = []
    queues: dict[Device, list[int]] = {}
    resident: dict[Device, int] = {}
    nearest = accelerators[0] if accelerators else CPU
    for at, home in enumerate(homes):
        if home.is_accelerator:
            nearest = home
            resident[home] = resident.get(home, 0) + loads.resident(at)
            executes.append(home)
            continue
        stays = nearest == CPU or at in in_place or not loads.frozen[at] or loads.slot[at] > problem.limit(nearest)
        device = CPU if stays else nearest
        executes.append(device)
        if device != CPU or home == DISK:
            queues.setdefault(device, []).append(at)
        elif home == CPU:
            resident[CPU] = resident.get(CPU, 0) + loads.weight[at] + loads.held[at] + loads.run[at]
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    if CPU in executes:
        needs[CPU] = problem.activation_bytes
    offered = {budget.device for budget in problem.budgets}
    for device, queue in queues.items():
        largest = max(queue, key=lambda at: (loads.slot[at], -at))
        size = loads.slot[largest]
        beside = sum(loads.run[at] + loads.buffers[at] for at in queue) + needs.get(device, 0)
        room = problem.limit(device) - resident.get(device, 0) - beside if device in offered else None
        count = most_slots if room is None or most_slots * size <= room else 1
        slots[device] = Slots(count, size, largest, len(queue))
        needs[device] = count * size + beside
    if CPU not in offered:
        needs.pop(CPU, None)
    chosen = frozenset(at for at, device in enumerate(executes) if device == CPU)
    return Streaming(tuple(executes), slots, needs, chosen)


def is_within_budgets(problem: Problem, homes: Sequence[Device], streaming: Streaming) -> bool:
    """Whether every device holds its residents, what streams there, and what the workload keeps; nothing trained on disk."""
    loads = problem.loads
    totals = dict(streaming.needs)
    for at, (home, device) in enumerate(zip(homes, streaming.executes, strict=True)):
        if home == DISK and not loads.frozen[at]:
            return False
        nbytes = loads.weight[at] + loads.held[at] + (loads.run[at] if home == device else -loads.buffers[at])
        totals[home] = totals.get(home, 0) + nbytes
    return all(nbytes <= problem.limit(device) for device, nbytes in totals.items())
