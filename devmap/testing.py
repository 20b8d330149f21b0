"""Simulated accelerators for tests and demos: real numbers on a machine without any."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from devmap.config.values.size import parse_size
from devmap.devices.simulated import POISON, poison
from devmap.devices.simulated_ledger import Ledger
from devmap.devices.simulated_machine import SimulatedDevice, SimulatedMachine, enter_machine, leave_machine
from devmap.devices.simulated_registration import SIM, register
from devmap.devices.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["POISON", "SimulatedDevice", "SimulatedMachine", "poison", "simulated_devices"]


@contextmanager
def simulated_devices(
    budgets: Mapping[int, int | str],
    cpu: int | str | None = None,
    *,
    activations: bool = True,
    host_to_device: float | Mapping[int, float] | None = None,
) -> Iterator[Mapping[int, SimulatedDevice]]:
    """Offer simulated accelerators `sim:0`, `sim:1`, ...

    With budgets in bytes (`60_000_000`, `"60MB"`); gaps are allowed.

    Tensors on them hold real numbers. Every storage counts in its device's ledger from its construction to
    its collection, views once; an allocation past the budget raises. With `activations=False` the budget
    bounds only what is held: slabs that a backend allocated and parameters. The rest is counted and reported
    beside it.

    `cpu` is a budget for host memory that is allocated through a backend. `host_to_device` is a rate in bytes
    a second for the virtual clock, for all devices or each.

    Example:
        >>> with simulated_devices({0: "1MB"}) as devices:
        ...     weight = torch.ones(1000, device="sim:0")
        ...     total = weight.sum().item(), devices[0].used_bytes
        >>> total
        (1000.0, 4000)

    Raises:
        DeviceError: when used inside another such context, or when torch's one name for outside backends is
            taken.
        OutOfMemoryError: inside, past a budget.
    """
    register()
    clock = VirtualClock()
    devices: dict[int, SimulatedDevice] = {}
    for index, budget in sorted(budgets.items()):
        ledger = Ledger(f"{SIM}:{index}", parse_size(budget), counts_activations=activations)
        rate = host_to_device if isinstance(host_to_device, float | int | None) else host_to_device.get(index)
        devices[index] = SimulatedDevice(index, ledger, clock, clock.stream(f"{SIM}:{index} compute"), rate)
    host = None if cpu is None else Ledger("cpu", parse_size(cpu), counts_activations=False)
    machine = SimulatedMachine(devices, host, clock, current_index=min(devices, default=0))
    enter_machine(machine)
    threaded = torch.autograd.is_multithreading_enabled()
    # torch believes that an outside backend has one device: its backward threads would refuse sim:1.
    torch.autograd.set_multithreading_enabled(False)
    try:
        yield devices
    finally:
        torch.autograd.set_multithreading_enabled(threaded)
        leave_machine(machine)
