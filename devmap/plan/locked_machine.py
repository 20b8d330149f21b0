"""The devices that a lock was made for, as a machine, and what another machine lacks of them.

A config without `max_memory`, or with shares in it, takes its budgets from a machine. A lock fixes them: with
the lock's own capacities in the place of the machine the same config gives the same plan anywhere, in CI and
on every host that loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.size import Bytes, Percent, format_bytes
from devmap.inventory.fingerprint import fingerprint
from devmap.plan.fingerprint import config_fingerprint

if TYPE_CHECKING:
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.lock import Lock
    from devmap.plan.model import Plan

__all__ = ["extra_devices", "lacking", "locked_machine"]


def locked_machine(lock: Lock, config: PlacementConfig, inventory: Inventory) -> MachineProfile | None:
    """Return the machine with which the config has the budgets that the lock holds.

    Devices without a limit are left out.

    None where the lock is stale, edited or of another model: it says nothing of this config then. A share of
    a device's memory was rounded down to whole bytes, so the memory is the least of which the share is the
    same.
    """
    is_ours = (lock.config_fingerprint, lock.inventory_fingerprint) == (
        config_fingerprint(config),
        fingerprint(inventory),
    )
    if not is_ours or lock.is_hand_edited:
        return None
    devices = {}
    for locked in lock.devices:
        if locked.capacity_bytes is None:
            continue
        memory_of = config.max_memory or {}
        amount = memory_of.get(locked.device, memory_of.get(locked.device.on(None)))
        memory = locked.capacity_bytes
        if isinstance(amount, Percent):
            memory = amount.total_of(locked.capacity_bytes)
        devices[locked.device] = MachineDevice(memory=Bytes(memory))
    machine = MachineProfile(name="the machine of the lock", devices=devices)
    if config.machine is None or not config.machine.nodes:
        return machine
    # Which node is which, and what lies between them, no lock says.
    return machine.model_copy(update={"nodes": config.machine.nodes, "network": config.machine.network})


def lacking(plan: Plan, machine: MachineProfile) -> tuple[str, ...]:
    """Return what a machine lacks for a plan, in a sentence per device.

    One that is not there, or has less memory than the plan takes.

    Headroom does not count as taken. The disk is not looked at.
    """
    found = []
    for use in plan.devices:
        taken = use.weight_bytes + sum(charge.nbytes for charge in use.charges if charge.what != "headroom")
        known = machine.devices.get(use.device)
        if not taken or use.capacity_bytes is None or use.device.plain == "disk":
            continue
        if known is None:
            found.append(f"the plan puts {format_bytes(taken)} on device {use.device}, which is not there")
        elif known.memory < taken:
            found.append(
                f"the plan takes {format_bytes(taken)} on {use.device}, which has "
                f"{format_bytes(known.memory)} free"
            )
    return tuple(found)


def extra_devices(plan: Plan, machine: MachineProfile) -> tuple[Device, ...]:
    """Return the accelerators of a machine that the plan does not know."""
    known = {use.device for use in plan.devices}
    return tuple(
        device for device in sorted(machine.devices) if device.is_accelerator and device not in known
    )
