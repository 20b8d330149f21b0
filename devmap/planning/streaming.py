"""Where spilled atoms are executed, and the room that streaming them takes.

A streamed atom is executed by the accelerator of its nearest resident predecessor in the order: the activations are there. That device
keeps two slots of the largest atom that streams there, so that one is filled while the other is computed; one, without that
overlap, where two do not fit. An atom on cpu that fits no slot is computed by the CPU where it lies. One on disk that fits none is
brought into a slot in host memory and computed by the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.planning.problem import Slots, Streaming

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.config.device import Device
    from devmap.planning.problem import Problem

__all__ = ["stream"]


def stream(problem: Problem, homes: Sequence[Device], in_place: frozenset[int], *, most_slots: int) -> Streaming:
    """Executing devices and needs for these homes; atoms of `in_place` stay on the CPU, and others may join them."""
    accelerators = problem.accelerators
    rooms = {device: problem.limit(device) for device in accelerators}
    for at, unit in enumerate(problem.units):
        if unit.pin is not None and unit.pin in rooms:
            rooms[unit.pin] -= problem.resident_bytes[at]
    streamed: dict[Device, list[int]] = {}
    executes: list[Device] = []
    nearest = accelerators[0] if accelerators else CPU
    for at, home in enumerate(homes):
        if home.is_accelerator:
            nearest = home
            executes.append(home)
        elif nearest == CPU or at in in_place:
            executes.append(CPU)
        else:
            executes.append(nearest)
            streamed.setdefault(nearest, []).append(at)
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    for device, queue in streamed.items():
        kept, evicted = _slots(problem, queue, rooms[device], most_slots)
        for at in evicted:
            executes[at] = CPU
        if kept is not None:
            slots[device] = kept
            gone = set(evicted)
            needs[device] = kept.nbytes + sum(problem.loads.run[at] + problem.loads.buffers[at] for at in queue if at not in gone)
    _stream_to_cpu(problem, homes, executes, slots, needs, most_slots)
    in_place_now = frozenset(at for at, device in enumerate(executes) if device == CPU)
    return Streaming(tuple(executes), slots, needs, in_place_now)


def _slots(problem: Problem, queue: Sequence[int], room: int, most_slots: int) -> tuple[Slots | None, list[int]]:
    """Slots for a queue of atoms within `room`, and the atoms that must be left to the CPU.

    Evicted are first the atoms that no slot can hold, then, where what the workload keeps for the rest is still too much, the last
    ones in the order.
    """
    loads = problem.loads
    evicted = [at for at in queue if loads.slot[at] > room]
    kept = [at for at in queue if loads.slot[at] <= room]
    beside = sum(loads.run[at] + loads.buffers[at] for at in kept)
    largest = _largest_so_far(loads.slot, kept)
    while kept and largest[-1][0] + beside > room:
        last = kept.pop()
        largest.pop()
        beside -= loads.run[last] + loads.buffers[last]
        evicted.append(last)
    if not kept:
        return None, evicted
    slot_bytes, atom = largest[-1]
    count = 2 if most_slots > 1 and 2 * slot_bytes + beside <= room else 1
    return Slots(count, slot_bytes, atom, len(kept)), evicted


def _largest_so_far(sizes: Sequence[int], queue: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    best = (-1, -1)
    for at in queue:
        if sizes[at] > best[0]:
            best = (sizes[at], at)
        found.append(best)
    return found


def _stream_to_cpu(
    problem: Problem,
    homes: Sequence[Device],
    executes: Sequence[Device],
    slots: dict[Device, Slots],
    needs: dict[Device, int],
    most_slots: int,
) -> None:
    """What the CPU needs beyond what lives there: slots for atoms on disk, and activations; only where cpu has a budget."""
    offered = next((budget for budget in problem.budgets if budget.device == CPU), None)
    loads = problem.loads
    queue = [at for at, device in enumerate(executes) if device == CPU and homes[at] == DISK]
    if queue:
        largest = max(queue, key=lambda at: loads.slot[at])
        beside = problem.activation_bytes + sum(loads.run[at] + loads.buffers[at] for at in queue)
        room = problem.limit(CPU) if offered is not None else None
        count = 2 if most_slots > 1 and (room is None or 2 * loads.slot[largest] + beside <= room) else 1
        slots[CPU] = Slots(count, loads.slot[largest], largest, len(queue))
    if offered is None or CPU not in executes:
        return
    needs[CPU] = problem.activation_bytes + sum(loads.run[at] + loads.buffers[at] for at in queue) + (slots[CPU].nbytes if queue else 0)
