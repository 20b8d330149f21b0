"""Where spilled atoms are executed, and the room that streaming them takes.

A streamed atom is executed by the accelerator of its nearest resident predecessor in the order: the
activations are there. That device keeps two slots of the largest atom that streams there, so that one is
filled while the other is computed; one, without that overlap, where two do not fit or are not worth it. An
atom on cpu that fits no slot is computed by the CPU where it lies. One on disk that fits none is
computed by the CPU from the mapped pages of its file.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK
from devmap.planning.placement.slot_sizing import fit_slots
from devmap.planning.problem.model import NO_LIMIT, Slots, Streaming, device_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["cpu_needs", "is_within_budgets", "stream", "streamed"]


def stream(problem: PlacementProblem, homes: Sequence[Device], room: Mapping[Device, int]) -> Streaming:
    """Executing devices for these homes, with slots in the bytes that the accelerators have left.

    Which of the two lower tiers an atom lives on makes no difference here; what the CPU needs is for
    `cpu_needs` to say.
    """
    execution_devices, queues = _executing(problem, homes)
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    in_place: list[int] = []
    cost = 0
    for device, queue in queues.items():
        if device == CPU:
            in_place += queue
            continue
        fitting = fit_slots(problem, queue, room[device])
        for at in fitting.left_to_cpu:
            execution_devices[at] = CPU
        in_place += fitting.left_to_cpu
        cost += fitting.cost
        if fitting.slots is not None:
            slots[device] = fitting.slots
            needs[device] = fitting.slots.nbytes + fitting.beside_bytes
    return Streaming(tuple(execution_devices), slots, needs, frozenset(in_place), cost)


def _executing(
    problem: PlacementProblem, homes: Sequence[Device]
) -> tuple[list[Device], dict[Device, list[int]]]:
    """Return the device of the nearest resident predecessor of each atom.

    And the atoms on lower tiers by that device.
    """
    accelerators = problem.accelerators
    nearest = accelerators[0] if accelerators else CPU
    queues: dict[Device, list[int]] = {}
    queue: list[int] = []
    execution_devices: list[Device] = []
    for at, home in enumerate(homes):
        if home in (CPU, DISK):
            queue.append(at)
        elif home is not nearest:
            queues.setdefault(nearest, []).extend(queue)
            nearest, queue = home, []
        execution_devices.append(nearest)
    queues.setdefault(nearest, []).extend(queue)
    return execution_devices, {device: members for device, members in queues.items() if members}


def cpu_needs(problem: PlacementProblem, homes: Sequence[Device], in_place: frozenset[int]) -> int:
    """Return what the CPU keeps beside the weights that live there, for the atoms that it computes.

    0 where it has no budget.

    No slots: a block on disk that the CPU computes runs from the mapped pages of its file, which the system
    takes back whenever it needs them. What has to change on its way goes through host memory of
    `offload.host_memory`.
    """
    if not in_place or CPU not in problem.limits:
        return 0
    return problem.activation_bytes + sum([problem.beside_bytes[at] for at in in_place if homes[at] == DISK])


# Executing devices, slots and bytes of homes that were chosen by time: the CPU computes exactly what it is
# told to.
#
# As everywhere, a streamed atom executes on the accelerator of its nearest resident predecessor (the first
# accelerator where there is none). An atom that no slot of that device could hold is computed by the CPU.


def streamed(
    problem: PlacementProblem, homes: Sequence[Device], in_place: frozenset[int], *, most_slots: int
) -> Streaming:
    """Return where these homes are executed when the CPU computes `in_place` (and all that is trained).

    And what that takes.

    Each device gets `most_slots` slots of the largest atom that streams there, and fewer where they do not
    fit beside its residents.
    """
    accelerators = problem.accelerators
    loads, limits = problem.loads, problem.limits
    execution_devices: list[Device] = []
    queues: dict[Device, list[int]] = {}
    resident: dict[Device, int] = {}
    nearest = accelerators[0] if accelerators else CPU
    up_to = _up_to(loads.weight, loads.held, loads.run)
    for home, start, end in device_runs(homes):
        if home.is_accelerator:
            nearest = home
            resident[home] = resident.get(home, 0) + up_to[end] - up_to[start]
            execution_devices += [home] * (end - start)
            continue
        room = -1 if nearest == CPU else limits[nearest]
        stays = [
            at for at in range(start, end) if at in in_place or loads.slot[at] > room or not loads.frozen[at]
        ]
        whole = [nearest] * (end - start)
        for at in stays:
            whole[at - start] = CPU
        execution_devices += whole
        if home == CPU:
            resident[CPU] = resident.get(CPU, 0) + sum([loads.resident(at) for at in stays])
        elif stays:
            queues.setdefault(CPU, []).extend(stays)
        if len(stays) < end - start:
            skipped = set(stays)
            queues.setdefault(nearest, []).extend(
                [at for at in range(start, end) if at not in skipped] if stays else range(start, end)
            )
    slots: dict[Device, Slots] = {}
    needs: dict[Device, int] = {}
    if CPU in execution_devices:
        mapped = queues.pop(CPU, ())  # without slots, as `cpu_needs` says
        needs[CPU] = problem.activation_bytes + sum([problem.beside_bytes[at] for at in mapped])
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
    chosen = frozenset(at for at, device in enumerate(execution_devices) if device == CPU)
    return Streaming(tuple(execution_devices), slots, needs, chosen)


def is_within_budgets(problem: PlacementProblem, homes: Sequence[Device], streaming: Streaming) -> bool:
    """Return whether every device holds its residents, what streams there, and what the workload keeps.

    Nothing trained on disk.
    """
    loads = problem.loads
    totals = dict(streaming.needs)
    up_to = _up_to(loads.weight, loads.held)
    for home, start, end in device_runs(homes):
        if home == DISK and not all(loads.frozen[start:end]):
            return False
        totals[home] = totals.get(home, 0) + up_to[end] - up_to[start]
    if any(problem.beside_bytes):
        for at, (home, device) in enumerate(zip(homes, streaming.execution_devices, strict=True)):
            totals[home] += loads.run[at] if home is device else -loads.buffers[at]
    return all(nbytes <= problem.limits[device] for device, nbytes in totals.items())


def _up_to(*amounts: Sequence[int]) -> list[int]:
    """Prefix sums over atoms of several amounts together."""
    some = [each for each in amounts if any(each)]
    return [
        0,
        *accumulate(
            some[0]
            if len(some) == 1
            else map(sum, zip(*some, strict=True))
            if some
            else (0,) * len(amounts[0])
        ),
    ]
