"""The simulated machine: which devices there are, their ledgers and clocks.

At most one at a time in a process.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from devmap.devices.simulated_ledger import Ledger
    from devmap.devices.virtual_clock import VirtualClock, VirtualStream

__all__ = [
    "SimulatedDevice",
    "SimulatedMachine",
    "active_machine",
    "enter_machine",
    "leave_machine",
    "require_machine",
]


@dataclass(eq=False)
class SimulatedDevice:
    """One simulated device: the handle that tests hold."""

    index: int
    """The `n` of `sim:n`."""
    ledger: Ledger
    clock: VirtualClock
    compute: VirtualStream
    """Virtual time of kernels and of copies that are not queued on a stream."""
    host_to_device: float | None = None
    """Bytes a second of copies from or to the host; None takes no virtual time."""
    is_open: bool = True
    """False once its context has ended."""
    kernels: int = 0
    """How many kernels have read or written a slab."""
    last_kernel: dict[int, int] = field(default_factory=dict)
    """For each slab, by its storage's identity: the number of the last kernel that read or wrote it."""
    settled_kernels: int = 0
    """The kernels up to this number are known to be done: the host has waited for them."""

    @property
    def name(self) -> str:
        """What torch calls it."""
        return self.ledger.name

    @property
    def used_bytes(self) -> int:
        """Bytes of all live tensors."""
        return self.ledger.used_bytes

    @property
    def peak_bytes(self) -> int:
        """The most that `used_bytes` has been."""
        return self.ledger.peak_bytes

    @property
    def budget_bytes(self) -> int:
        """What an allocation may not pass."""
        return self.ledger.budget_bytes

    def __str__(self) -> str:
        ledger = self.ledger
        held, transient = format_bytes(ledger.held_peak_bytes), format_bytes(ledger.transient_peak_bytes)
        return (
            f"{self.name}: at most {held} of weights and slots, {transient} of activations; "
            f"budget {format_bytes(ledger.budget_bytes)}"
        )

    def watch(self, storage: torch.UntypedStorage) -> None:
        """Note from now on which kernels use a slab."""
        self.last_kernel[id(storage)] = 0
        weakref.finalize(storage, self.last_kernel.pop, id(storage), None).atexit = False

    def note_kernel(self, storage: torch.UntypedStorage) -> None:
        """Note that a kernel uses a storage; only slabs matter."""
        if id(storage) in self.last_kernel:
            self.kernels += 1
            self.last_kernel[id(storage)] = self.kernels

    def spend(self, seconds: float) -> None:
        """Let the compute stream take virtual time.

        The cost of a module's kernels, from a forward hook of a test.
        """
        self.compute.run(seconds=seconds)


@dataclass(eq=False)
class SimulatedMachine:
    """Some devices with one clock."""

    devices: Mapping[int, SimulatedDevice]
    host: Ledger | None
    """Host memory with a budget, where one is given."""
    clock: VirtualClock
    current_index: int = 0

    def device(self, index: int | None) -> SimulatedDevice:
        """Return the device `sim:index`; the current one for None.

        Raises:
            DeviceError: when there is none with this index.
        """
        found = self.devices.get(self.current_index if index is None else index)
        if found is None:
            names = ", ".join(device.name for device in self.devices.values())
            raise DeviceError(
                f"there is no simulated device sim:{index}", help=f"this context offers {names}"
            )
        return found


_active: list[SimulatedMachine] = []
"""The open machine, if there is one. A list, so that no `global` is needed; never longer than one."""


def active_machine() -> SimulatedMachine | None:
    """Return the machine of the `simulated_devices` context that is open, or None."""
    return _active[-1] if _active else None


def require_machine() -> SimulatedMachine:
    """Return the open machine.

    Raises:
        DeviceError: outside of a `simulated_devices` context.
    """
    if not _active:
        raise DeviceError(
            "there are no simulated devices here",
            help="use them inside `with devmap.testing.simulated_devices(...)`",
        )
    return _active[-1]


def enter_machine(machine: SimulatedMachine) -> None:
    """Open a machine.

    Raises:
        DeviceError: when one is open already.
    """
    if _active:
        names = ", ".join(device.name for device in _active[-1].devices.values())
        raise DeviceError(
            f"simulated devices are in use already ({names})",
            help="leave the outer `simulated_devices` context first; name all devices in one call",
        )
    _active.append(machine)


def leave_machine(machine: SimulatedMachine) -> None:
    """Close a machine: tensors of it that are still alive raise when they are used."""
    for device in machine.devices.values():
        device.is_open = False
    _active.remove(machine)
