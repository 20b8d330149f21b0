"""Components that share the devices by turns: each is planned as if it were alone, and the plans are joined.

While one of them runs, it alone is on the accelerators and in CPU memory; the others wait in their files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devmap.config.values.device import DISK
from devmap.config.values.strategy import Residency
from devmap.inventory.model import Inventory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.patterns import PathIndex
    from devmap.plan.model import DeviceUse, Plan

__all__ = ["joined_plan", "turn_around", "turn_of"]


def turn_of(config: PlacementConfig, inventory: Inventory, name: str) -> tuple[PlacementConfig, Inventory]:
    """Return the config and the inventory of one component's turn; its paths still begin with its name.

    Keys of maps and constraints that only name modules of other components are left out.
    """
    part = _part(inventory, name)
    own = part.index

    def concerns(key: str) -> bool:
        return bool(own.match(key)) or not _is_in(inventory.index, key)

    workload = config.workload
    if workload is not None and workload.trainable is not None:
        trained = [key for key in workload.trainable if concerns(key)]
        workload = workload.model_copy(update={"trainable": trained})
    groups = [[key for key in group if concerns(key)] for group in config.same_device]
    alone = config.model_copy(
        update={
            "components": {name: config.components[name]},
            "residency": Residency.TOGETHER,
            "device_map": {key: target for key, target in config.device_map.items() if concerns(key)},
            "same_device": [group for group in groups if len(group) > 1],
            "forbid": {
                device: [key for key in keys if concerns(key)] for device, keys in config.forbid.items()
            },
            "workload": workload,
        }
    )
    return alone, part


def turn_around(
    config: PlacementConfig, inventory: Inventory, path: str
) -> tuple[PlacementConfig, Inventory]:
    """Return the config and the inventory of a module's turn; both as they are where nothing takes turns."""
    name = path.partition(".")[0]
    if config.residency is not Residency.BY_TURNS or name not in config.components:
        return config, inventory
    return turn_of(config, inventory, name)


def _is_in(index: PathIndex, key: str) -> bool:
    return bool(index.match(key))


def _part(inventory: Inventory, name: str) -> Inventory:
    def inside(path: str) -> bool:
        return path == name or path.startswith(f"{name}.")

    return Inventory(
        {path: kind for path, kind in inventory.modules.items() if not path or inside(path)},
        {path: tensor for path, tensor in inventory.tensors.items() if inside(path)},
        tuple(group for group in inventory.ties if inside(group[0])),
        inventory.no_split_module_classes,
        inventory.architecture,
        notes=inventory.notes,
    )


def joined_plan(plans: Mapping[str, Plan], *, inventory_fingerprint: str, config_fingerprint: str) -> Plan:
    """Return the plan of all turns.

    A device's figures are those of the turn that takes most of it; the disk holds what every component reads
    from it.
    """
    first = next(iter(plans.values()))
    return replace(
        first,
        device_map={
            path or name: home for name, plan in plans.items() for path, home in plan.device_map.items()
        },
        placements=tuple(each for plan in plans.values() for each in plan.placements),
        devices=tuple(
            _use(use, [plan.use_of(use.device) for plan in plans.values()]) for use in first.devices
        ),
        strategy="+".join(dict.fromkeys(plan.strategy for plan in plans.values())),
        ties=tuple(group for plan in plans.values() for group in plan.ties),
        tied_copies=tuple(copy for plan in plans.values() for copy in plan.tied_copies),
        reasons=(
            "The components take turns: each has the devices to itself, the others wait in their files.",
            *(f"{name}: {reason}" for name, plan in plans.items() for reason in plan.reasons),
        ),
        predicted_seconds=None,
        bound_seconds=None,
        inventory_fingerprint=inventory_fingerprint,
        config_fingerprint=config_fingerprint,
    )


def _use(first: DeviceUse, uses: Iterable[DeviceUse | None]) -> DeviceUse:
    found = [use for use in uses if use is not None]
    if first.device == DISK:
        return replace(first, weight_bytes=sum(use.weight_bytes for use in found))
    return max(found, key=lambda use: use.weight_bytes + use.reserved_bytes)
