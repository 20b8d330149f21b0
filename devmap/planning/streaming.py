"""Where spilled atoms are executed, and the room that streaming them takes.

A streamed atom is executed by the accelerator of its nearest resident predecessor in the order: the activations are there. That device
keeps two slots of the largest atom that streams there, so that one is filled while the other is computed; one, without that
overlap, where two do not fit or are not worth it. An atom on cpu that fits no slot is computed by the CPU where it lies. One on disk
that fits none is brought into a slot in host memory and computed by the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK
from devmap.planning.problem import Slots, Streaming
from devmap.planning.slots import fit_slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.device import Device
    from devmap.planning.problem import Problem

__all__ = ["host_slots", "stream"]


def stream(problem: Problem, homes: Sequence[Device], room: Mapping[Device, int]) -> Streaming:
    """Executing devices for these homes, with slots in the bytes that the accelerators have left.

    Which of the two lower tiers an atom lives on makes no difference here; what the CPU needs is for `host_slots` to say.
    """
    executes, queues = _executing(problem, homes)
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    in_place: list[int] = []
    cost = 0
    for device, queue in queues.items():
        if device is CPU:
            in_place += queue
            continue
        fitting = fit_slots(problem, queue, room[device])
        for at in fitting.left_to_cpu:
            executes[at] = CPU
        in_place += fitting.left_to_cpu
        cost += fitting.cost
        if fitting.slots is not None:
            slots[device] = fitting.slots
            needs[device] = fitting.slots.nbytes + fitting.beside_bytes
    return Streaming(tuple(executes), slots, needs, frozenset(in_place), cost)


def _executing(problem: Problem, homes: Sequence[Device]) -> tuple[list[Device], dict[Device, list[int]]]:
    """The device of the nearest resident predecessor of each atom, and the atoms on lower tiers by that device."""
    accelerators = problem.accelerators
    nearest = accelerators[0] if accelerators else CPU
    queues: dict[Device, list[int]] = {}
    queue: list[int] = []
    executes: list[Device] = []
    for at, home in enumerate(homes):
        if home is CPU or home is DISK:
            queue.append(at)
        elif home is not nearest:
            queues.setdefault(nearest, []).extend(queue)
            nearest, queue = home, []
        executes.append(nearest)
    queues.setdefault(nearest, []).extend(queue)
    return executes, {device: members for device, members in queues.items() if members}


def host_slots(problem: Problem, homes: Sequence[Device], in_place: frozenset[int], *, most_slots: int) -> tuple[Slots | None, int]:
    """Slots for atoms on disk that the CPU computes, and all that the CPU keeps beside what lives there; 0 where it has no budget."""
    if not in_place:
        return None, 0
    queue = [at for at in sorted(in_place) if homes[at] is DISK]
    limit = problem.limits.get(CPU)
    beside = problem.activation_bytes + sum([problem.beside_bytes[at] for at in queue])
    slots = None
    if queue:
        largest = max(queue, key=problem.loads.slot.__getitem__)
        size = problem.loads.slot[largest]
        count = 2 if most_slots > 1 and (limit is None or 2 * size + beside <= limit) else 1
        slots = Slots(count, size, largest, len(queue))
    if limit is None:
        return slots, 0
    return slots, beside + (slots.nbytes if slots is not None else 0)
