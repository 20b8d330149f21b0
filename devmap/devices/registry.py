"""Which backend serves a device of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from devmap.config.values.device import Device, Tier
from devmap.devices.accelerator import AcceleratorBackend, accelerator_type, device_count
from devmap.devices.cpu import CpuBackend
from devmap.devices.simulated import BudgetedCpuBackend, SimulatedBackend
from devmap.devices.simulated_machine import active_machine
from devmap.errors import DeviceError

if TYPE_CHECKING:
    from devmap.devices.backend import Backend

__all__ = ["backend_for"]


def backend_for(device: Device) -> Backend:
    """Return the backend that serves a device.

    Inside `simulated_devices` that is a simulated one, whatever accelerators the machine has.

    Raises:
        DeviceError: when the machine has no such device. The disk is none: its bytes are read, not computed
            with.
    """
    if device.tier is Tier.DISK:
        raise DeviceError(
            "the disk cannot compute",
            help="weights on disk execute on an accelerator or on the cpu",
        )
    machine = active_machine()
    if device.tier is Tier.CPU:
        return CpuBackend() if machine is None or machine.host is None else BudgetedCpuBackend(machine.host)
    if machine is not None:
        return SimulatedBackend(machine.device(device.index))
    kind = device.backend or accelerator_type()
    if kind is None or kind == "sim":
        raise DeviceError(
            f"accelerator {device.index} is not there: this machine has no accelerators",
            help="try `devmap run --simulated`, or a profile whose max_memory offers only cpu and disk",
        )
    count = device_count(kind)
    if device.index >= count:
        raise DeviceError(
            f"{kind}:{device.index} is not there: this machine has {count} {kind} "
            f"device{'' if count == 1 else 's'}",
            help="try `devmap run --simulated`, or a profile for this machine"
            if count == 0
            else f"use indices 0 to {count - 1}",
        )
    return AcceleratorBackend(torch.device(kind, device.index))
