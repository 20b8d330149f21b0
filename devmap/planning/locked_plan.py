"""The plan that a lock fixes, made whole again.

A lock holds the map, a plan also why, what is reserved and how it runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.errors import DeviceMapError, LockError, ResolutionError
from devmap.inventory.fingerprint import fingerprint
from devmap.plan.fingerprint import config_fingerprint
from devmap.planning.resolve import resolve

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.lock import Lock
    from devmap.plan.model import Plan

__all__ = ["fault_of", "plan_of_lock"]


def fault_of(lock: Lock, config: PlacementConfig, inventory: Inventory) -> str:
    """Why a lock is not of this config and model, as the end of a sentence; empty where it is."""
    if lock.is_hand_edited:
        return "was edited by hand: its content does not have its digest"
    if lock.config_fingerprint != config_fingerprint(config):
        return "is stale: it was made from another state of the config"
    if lock.inventory_fingerprint != fingerprint(inventory):
        return "was made for another model than the config names"
    return ""


def plan_of_lock(
    lock: Lock, config: PlacementConfig, inventory: Inventory, *, machine: MachineProfile | None
) -> Plan:
    """Return the plan of a lock in which `fault_of` finds nothing, with its map and its executing devices.

    Where this devmap would plan differently (DM506), the lock's map is taken as if it were written by hand.

    Raises:
        LockError: when no plan of this devmap is the lock's.
    """
    try:
        plan = resolve(config, inventory, machine=machine)
    except ResolutionError:
        plan = None  # what made the lock found one
    if plan is not None and _is_of(plan, lock):
        return plan
    by_hand = config.model_copy(
        update={"device_map": {path: parse_device(value) for path, value in lock.device_map.items()}}
    )
    try:
        plan = resolve(by_hand, inventory, machine=machine)
    except (ResolutionError, DeviceMapError) as error:
        raise LockError(f"this devmap cannot apply the lock: {error.message}") from error
    if not _is_of(plan, lock):
        raise LockError(
            "this devmap cannot apply the lock: it would execute streamed blocks on other devices"
        )
    return replace(plan, strategy=lock.strategy, config_fingerprint=lock.config_fingerprint)


def _is_of(plan: Plan, lock: Lock) -> bool:
    streamed = {placement.path: placement.executes_on.plain for placement in plan.streamed}
    return dict(plan.device_map) == dict(lock.device_map) and streamed == dict(lock.executes_on)
