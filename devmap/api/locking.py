"""Locks beside configs, where a config leaves its budgets to the machine: the lock fixes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.machine import needs_machine
from devmap.errors import DeviceError
from devmap.plan.lock import lock_path, read_lock
from devmap.plan.locked_machine import extra_devices, lacking, locked_machine

if TYPE_CHECKING:
    import os

    from devmap.config.model import MachineProfile, PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["fixed_machine", "say_differences"]


def fixed_machine(
    config: PlacementConfig, inventory: Inventory, path: str | os.PathLike[str], profile: str | None = None
) -> MachineProfile | None:
    """The devices that the lock beside a config fixes, where the config's budgets are those of whatever machine it meets.

    None where the config says its budgets or names its machine, and where there is no lock, or one that is stale, edited
    or of another model: `devmap validate --locked` says which.

    Raises:
        LockError: when the lock cannot be read.
    """
    beside = lock_path(Path(path), profile)
    if not needs_machine(config) or config.machine is not None or not beside.exists():
        return None
    return locked_machine(read_lock(beside), config, inventory)


def say_differences(plan: Plan, machine: MachineProfile, path: str | os.PathLike[str]) -> None:
    """Compare a plan that a lock fixes with this machine; warn of accelerators that it leaves idle.

    Raises:
        DeviceError: when a device of the plan is not there, or has less memory free than the plan takes; names each.
    """
    faults = lacking(plan, machine)
    again = f"run `devmap resolve {path} --lock` on this machine, or give max_memory"
    if faults:
        raise DeviceError(f"the lock was made for another machine: {'; '.join(faults)}", help=again)
    idle = extra_devices(plan, machine)
    if idle:
        listed = ", ".join(map(str, idle))
        message = f"the lock was made for a machine without device {listed}, which stays empty; {again}"
        warnings.warn(message, stacklevel=3)
