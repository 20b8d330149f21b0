"""Sentences on what a plan aimed at and reached.

The strategy's figure, what limits it, what streams where, copies, gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, device_names, device_words
from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import Strategy
from devmap.planning.problem.model import device_runs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.model import DeviceUse
    from devmap.planning.problem.model import PlacementProblem, Solution
    from devmap.planning.problem.workload import WorkloadCharges

__all__ = ["reasons"]


def reasons(
    problem: PlacementProblem,
    workload: WorkloadCharges,
    solution: Solution,
    devices: Sequence[DeviceUse],
    *,
    strategy: str,
) -> tuple[str, ...]:
    """Return the reasons of a plan, the most telling first."""
    return (
        *_aim(solution, devices, strategy),
        *_spill(problem, solution),
        *_slots(problem, solution),
        *_in_place(problem, solution),
        *_copies(problem, solution),
        *_gaps(problem, solution),
        *_packed(problem, solution),
        *workload.notes,
    )


def _modules(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}module{'' if count == 1 else 's'}"


def _aim(solution: Solution, devices: Sequence[DeviceUse], strategy: str) -> Iterator[str]:
    held = [use for use in devices if use.device.is_accelerator]
    if not held:
        yield "No accelerator is offered: the CPU computes everything."
        return
    loads = {use.device: use.weight_bytes for use in held}
    used = [device for device, nbytes in loads.items() if nbytes]
    fits = all(device.is_accelerator for device, _, _ in device_runs(solution.homes))
    if solution.is_packed:
        return
    if strategy == Strategy.BALANCED and fits and used:
        most = max(used, key=lambda device: loads[device])
        yield (
            f"balanced: no split of the order into contiguous runs has a smaller largest load; "
            f"{device_words(most)} carries the most, {format_bytes(loads[most])} of weights."
        )
    elif strategy == Strategy.BALANCED_LOW_0 and fits:
        yield (
            f"balanced_low_0: {device_words(held[0].device)} holds {format_bytes(loads[held[0].device])}, "
            "the least that lets the rest fit."
        )
    elif fits and used and strategy != "manual":
        yield f"{strategy}: everything fits on {device_names(used)}; nothing is streamed."


def _spill(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    for tier in (CPU, DISK):
        spilled = [
            at
            for device, start, end in device_runs(solution.homes)
            if device == tier
            for at in range(start, end)
        ]
        if spilled and problem.accelerators:
            nbytes = sum(problem.loads.weight[at] for at in spilled)
            why = (
                "what the accelerators have no room for"
                if tier == CPU
                else "what no faster tier has room for"
            )
            first, last = problem.atoms[spilled[0]].path, problem.atoms[spilled[-1]].path
            run = f"'{first}'" if first == last else f"'{first}' to '{last}'"
            yield f"{tier} holds {format_bytes(nbytes)}, {why}: {_modules(len(spilled))}, {run}."


_OVERLAP = {
    1: ("1 slot", "a second one has no room, so that copies do not overlap with compute"),
    2: ("2 slots", "copies overlap with compute"),
}


def _slots(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    for device, slots in sorted(solution.streaming.slots.items()):
        path = problem.atoms[slots.atom].path
        count, overlap = _OVERLAP[slots.count]
        room = f"{count} of {format_bytes(slots.slot_bytes)} ('{path}')"
        run = "runs" if slots.streamed == 1 else "run"
        yield (
            f"{_modules(slots.streamed, 'streamed ')} {run} on {device_words(device)}, in {room}; {overlap}."
        )


def _in_place(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    if not problem.accelerators:
        return
    stay = [at for at in sorted(solution.streaming.in_place) if solution.homes[at] == CPU]
    trained = [at for at in stay if not problem.loads.frozen[at]]
    large = len(stay) - len(trained)
    if large:
        yield f"The CPU computes {_modules(large)} in place: no accelerator has a slot of that size."
    if trained:
        yield (
            f"The CPU computes {_modules(len(trained), 'trained ')} in "
            "place: trained weights are not streamed."
        )


def _copies(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    for copy in problem.copies:
        where = device_words(solution.homes[copy.atom])
        yield (
            f"'{copy.tensor}' is tied to '{copy.original}' and pinned apart from it: a copy "
            f"on {where} costs {format_bytes(copy.nbytes)}."
        )


def _gaps(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    for unit in solution.gaps:
        at = problem.units[unit].members[0]
        yield (
            f"'{problem.atoms[at].path}' went back to {device_words(solution.homes[at])}: "
            "no later device had room for it."
        )


def _packed(problem: PlacementProblem, solution: Solution) -> Iterator[str]:
    if solution.is_packed:
        offered = len(problem.limits)
        runs = len(device_runs(solution.homes))
        yield (
            f"No split of the model's order over the {offered} devices offered fits: "
            f"blocks are packed out of order, in {runs:,} runs."
        )
