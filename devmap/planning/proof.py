"""A plan proven before it is returned, from the plan, the inventory and the config alone.

Nothing here shares code with the algorithms: sizes are added up again tensor by tensor, homes are read from the folded map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import CPU, DISK, Device
from devmap.errors import ResolutionError
from devmap.inventory.dtypes import run_dtype, storage_bytes
from devmap.plan.fold import covers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.config.model import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Placement, Plan

__all__ = ["faults_of", "prove"]


def prove(plan: Plan, inventory: Inventory, config: PlacementConfig) -> None:
    """Check a plan against every promise.

    Raises:
        ResolutionError: when one does not hold, which is a defect of devmap.
    """
    faults = list(faults_of(plan, inventory, config))
    if faults:
        raise ResolutionError(
            f"the plan broke {len(faults)} of its own promises; first: {faults[0]}",
            help="this is a defect of devmap: please report it with the config and the manifest",
        )


def faults_of(plan: Plan, inventory: Inventory, config: PlacementConfig) -> Iterator[str]:
    """Every promise that a plan breaks, in a sentence each. Linear in tensors times depth."""
    homes: dict[str, int | str] = {}
    for name in inventory.tensors:
        value = covers(plan.device_map, name)
        if value is None:
            yield f"nothing places '{name}'"
            continue
        homes[name] = value
    if len(homes) < len(inventory.tensors):
        return
    yield from _wrong_names(plan, inventory)
    yield from _wrong_tiers(plan, config)
    yield from _straddling(plan, inventory, homes)
    pins = any(isinstance(target, Device) for target in config.device_map.values())
    if not pins:
        for group in inventory.ties:
            if len({homes[name] for name in group}) > 1:
                yield f"the tie {' = '.join(group)} is on several devices"
    yield from _wrong_bytes(plan, inventory, homes)
    yield from _wrong_executors(plan)


def _wrong_names(plan: Plan, inventory: Inventory) -> Iterator[str]:
    for key in plan.device_map:
        if key not in inventory.modules and key not in inventory.tensors:
            yield f"the key '{key}' names nothing"


def _wrong_tiers(plan: Plan, config: PlacementConfig) -> Iterator[str]:
    offered = {use.device for use in plan.devices}
    if config.max_memory is not None:
        offered = set(config.max_memory) | ({DISK} if config.offload.folder is not None else set())
    for device in {placement.home for placement in plan.placements}:
        if device not in offered:
            yield f"{device} holds weights and is not offered"


def _straddling(plan: Plan, inventory: Inventory, homes: Mapping[str, int | str]) -> Iterator[str]:
    """Modules of a whole class whose tensors lie on several devices; the devices below each module, from the leaves up."""
    whole = set(plan.no_split_module_classes)
    below: dict[str, set[int | str]] = {path: set() for path in inventory.modules}
    for name, device in homes.items():
        below[name.rpartition(".")[0]].add(device)
    for path in reversed(list(inventory.modules)):
        if inventory.modules[path] in whole and len(below[path]) > 1:
            yield f"'{path}' ({inventory.modules[path]}) straddles {', '.join(map(str, sorted(below[path], key=str)))}"
        if path:
            below[path.rpartition(".")[0]] |= below[path]


def _wrong_bytes(plan: Plan, inventory: Inventory, homes: Mapping[str, int | str]) -> Iterator[str]:
    """Weights added up again per device, each tied tensor once per device; every total against its capacity."""
    owner = inventory.owner
    weights: dict[int | str, int] = {}
    seen: set[tuple[str, int | str]] = set()
    for name, tensor in inventory.tensors.items():
        device = homes[name]
        if name in owner:
            if (owner[name], device) in seen:
                continue
            seen.add((owner[name], device))
        size = storage_bytes(tensor.shape, run_dtype(tensor.dtype, plan.dtype, kind=tensor.kind))
        weights[device] = weights.get(device, 0) + size
    away: dict[Device, int] = {}
    for placement in plan.placements:
        if placement.resident_buffer_bytes:
            away[placement.home] = away.get(placement.home, 0) + placement.resident_buffer_bytes
    for use in plan.devices:
        expected = weights.get(use.device.plain, 0) - away.get(use.device, 0)
        if use.weight_bytes != expected:
            yield f"{use.device} is said to hold {use.weight_bytes:,} bytes of weights and holds {expected:,}"
        if use.free_bytes is not None and use.free_bytes < 0:
            yield f"{use.device} is over its budget by {-use.free_bytes:,} bytes"


def _wrong_executors(plan: Plan) -> Iterator[str]:
    """Executing devices, and that every device with streamed atoms keeps a slot for the largest."""
    able = {use.device for use in plan.devices} | {CPU}
    streams: dict[Device, int] = {}
    nearest: Device | None = None
    for placement in plan.placements:
        if placement.executes_on not in able or placement.executes_on == DISK:
            yield f"'{placement.path}' is executed on {placement.executes_on}"
        if placement.home.is_accelerator:
            nearest = placement.home
            if placement.executes_on != placement.home:
                yield f"'{placement.path}' lives on {placement.home} and is executed on {placement.executes_on}"
        elif placement.executes_on.is_accelerator:
            if nearest is not None and placement.executes_on != nearest:
                yield f"'{placement.path}' is streamed to {placement.executes_on}; the nearest resident module before it is on {nearest}"
            streams[placement.executes_on] = max(streams.get(placement.executes_on, 0), _slot_bytes(placement))
    for device, largest in sorted(streams.items()):
        use = plan.use_of(device)
        slots = sum(charge.nbytes for charge in use.charges if charge.what == "slots") if use is not None else 0
        if slots < largest:
            yield f"{device} keeps {slots:,} bytes of slots for a module of {largest:,}"


def _slot_bytes(placement: Placement) -> int:
    return placement.home_bytes
