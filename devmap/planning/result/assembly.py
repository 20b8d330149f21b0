"""A solution written down as a plan.

Placements, bytes per device with every charge, the folded map, the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import CPU
from devmap.config.values.size import format_bytes
from devmap.inventory.bulk import rows
from devmap.inventory.fingerprint import fingerprint
from devmap.plan.fingerprint import config_fingerprint
from devmap.plan.fold import fold_device_map
from devmap.plan.model import Charge, DeviceUse, Placement, Plan, TiedCopy
from devmap.planning.problem.model import device_runs
from devmap.planning.problem.workload import per_device
from devmap.planning.result.reasons import reasons

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.planning.problem.model import PlacementProblem, Solution
    from devmap.planning.problem.workload import WorkloadCharges

__all__ = ["plan_of"]


def plan_of(
    config: PlacementConfig,
    inventory: Inventory,
    problem: PlacementProblem,
    workload: WorkloadCharges,
    solution: Solution,
    *,
    strategy: str,
) -> Plan:
    """Return the plan of a solution. Linear in tensors."""
    placements = _placements(problem, solution)
    devices = _device_uses(problem, workload, solution, placements)
    whole = (
        inventory.no_split_module_classes
        if config.no_split_module_classes is None
        else config.no_split_module_classes
    )
    return Plan(
        device_map=fold_device_map(_runs(problem, inventory, solution), inventory),
        placements=placements,
        devices=devices,
        strategy=strategy,
        dtype=config.model.dtype,
        no_split_module_classes=tuple(whole),
        ties=inventory.ties,
        tied_copies=tuple(
            TiedCopy(copy.tensor, copy.original, solution.homes[copy.atom], copy.nbytes)
            for copy in problem.copies
        ),
        reasons=reasons(problem, workload, solution, devices, strategy=strategy),
        backends=_backends(config),
        offload_buffers=config.offload.buffers,
        host_memory_bytes=config.offload.host_memory,
        offload_folder=config.offload.folder,
        inventory_fingerprint=fingerprint(inventory),
        config_fingerprint=config_fingerprint(config),
    )


def _runs(
    problem: PlacementProblem, inventory: Inventory, solution: Solution
) -> Iterator[tuple[int, int, int | str]]:
    """Homes by runs of tensors."""
    number = inventory.flat_index.number
    for home, start, end in device_runs(solution.homes):
        yield (
            number[problem.atoms[start].tensors[0]],
            number[problem.atoms[end - 1].tensors[-1]] + 1,
            home.plain,
        )


def _placements(problem: PlacementProblem, solution: Solution) -> tuple[Placement, ...]:
    homes, execution_devices = solution.homes, solution.streaming.execution_devices
    stays = [0] * len(homes)
    if any(problem.loads.buffers):
        stays = [
            nbytes if home is not on and home != on else 0
            for nbytes, home, on in zip(problem.loads.buffers, homes, execution_devices, strict=True)
        ]
    paths = [atom.path for atom in problem.atoms]
    return rows(Placement, paths, homes, execution_devices, problem.loads.weight, stays)


def _device_uses(
    problem: PlacementProblem, workload: WorkloadCharges, solution: Solution, placements: Sequence[Placement]
) -> tuple[DeviceUse, ...]:
    weights: dict[Device, int] = {}
    held: dict[Device, list[int]] = {}
    run: dict[Device, list[int]] = {}
    staying: dict[Device, int] = {}
    for device, start, end in device_runs(solution.homes):
        weights[device] = weights.get(device, 0) + sum(
            [placement.home_bytes for placement in placements[start:end]]
        )
        held.setdefault(device, []).extend(range(start, end))
    for device, start, end in device_runs(solution.streaming.execution_devices):
        staying[device] = staying.get(device, 0) + sum(
            [placement.resident_buffer_bytes for placement in placements[start:end]]
        )
        run.setdefault(device, []).extend(range(start, end))
    found = []
    for budget in problem.budgets:
        device = budget.device
        charges = list(budget.charges)
        if staying.get(device):
            charges.append(
                Charge("buffers", staying[device], "buffers of streamed modules stay where they are executed")
            )
        for kind in workload.by_kind:
            nbytes, arithmetic = per_device(kind, (held if kind.follows_home else run).get(device, []))
            if nbytes:
                charges.append(Charge(kind.what, nbytes, arithmetic))
        if device in run and workload.activation_bytes:
            charges.append(Charge("activations", workload.activation_bytes, workload.activation_arithmetic))
        slots = solution.streaming.slots.get(device)
        if slots is not None:
            plural = "s" if slots.count > 1 else ""
            arithmetic = (
                f"{slots.count} slot{plural} x {format_bytes(slots.slot_bytes)} "
                f"({problem.atoms[slots.atom].path})"
            )
            charges.append(Charge("slots", slots.nbytes, arithmetic))
        found.append(DeviceUse(device, budget.capacity, weights.get(device, 0), tuple(charges)))
    return tuple(found)


def _backends(config: PlacementConfig) -> dict[int, str]:
    """Torch's word for accelerators that the config names by one."""
    named = [
        *(config.max_memory or ()),
        *(target for target in config.device_map.values() if hasattr(target, "backend")),
        CPU,
    ]
    return {
        device.index: device.backend
        for device in named
        if device.is_accelerator and device.backend is not None
    }
