"""Locks beside configs: the plan that was reviewed is the plan that runs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.machine import machine_of, needs_machine
from devmap.api.resolution import resolve
from devmap.config.regular_files import is_there
from devmap.errors import DeviceError, LockError
from devmap.plan.fingerprint import config_fingerprint
from devmap.plan.lock import lock_path, read_lock
from devmap.plan.locked_machine import extra_devices, lacking, locked_machine
from devmap.planning.locked_plan import fault_of, plan_of_lock

if TYPE_CHECKING:
    import os

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.lock import Lock
    from devmap.plan.model import Plan

__all__ = ["Chosen", "choose_plan", "say_differences"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan for a config file, and where it comes from."""

    plan: Plan
    lock: Path | None = None
    """The lock that it was taken from; None where it was made anew."""
    passed_over: Path | None = None
    """The lock that does not count, because overrides have changed what it was made from."""
    is_fixed: bool = False
    """Whether the lock says which devices there are, because the config leaves them to the machine."""


def choose_plan(
    config: PlacementConfig,
    inventory: Inventory,
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overridden: bool = False,
) -> Chosen:
    """Return the plan of the lock beside a config file; a new one where there is no lock.

    `overridden` says that keys of the config were changed for this run: a lock of the config as it stands is
    passed over then.

    Raises:
        LockError: when the lock is stale, edited or of another model, or cannot be read or applied. It is
            never quietly
            replaced: what was reviewed would not be what runs.
        DevmapError: what `devmap.api.resolution.resolve` raises.
    """
    beside = lock_path(Path(path), profile)
    if not is_there(beside):
        return Chosen(resolve(config, inventory))
    lock = read_lock(beside)
    if overridden and lock.config_fingerprint != config_fingerprint(config):
        return Chosen(resolve(config, inventory), passed_over=beside)
    command = f"devmap resolve {path}{f' --profile {profile}' if profile else ''} --lock"
    again = f"run `{command}` and read its diff, or plan without it: --no-lock, in a program use_lock=False"
    fault = fault_of(lock, config, inventory)
    if fault:
        raise LockError(f"the lock {beside} {fault}", help=again)
    fixed = _fixed_machine(lock, config, inventory)
    try:
        plan = plan_of_lock(lock, config, inventory, machine=fixed or machine_of(config, probe=True))
    except LockError as error:
        raise LockError(f"{beside}: {error.message}", help=again) from error
    return Chosen(plan, lock=beside, is_fixed=fixed is not None)


def _fixed_machine(lock: Lock, config: PlacementConfig, inventory: Inventory) -> MachineProfile | None:
    """Return the devices that the lock fixes.

    Where the config's budgets are those of whatever machine it meets.

    Else None.
    """
    return (
        locked_machine(lock, config, inventory) if needs_machine(config) and config.machine is None else None
    )


def say_differences(plan: Plan, machine: MachineProfile, path: str | os.PathLike[str]) -> None:
    """Compare a plan that a lock fixes with this machine; warn of accelerators that it leaves idle.

    Raises:
        DeviceError: when a device of the plan is not there, or has less memory free than the plan takes;
            names each.
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
