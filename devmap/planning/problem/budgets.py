"""Budgets: what each offered device may hold, after headroom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, Device, Tier, device_name
from devmap.config.values.size import Percent, format_bytes
from devmap.errors import ResolutionError
from devmap.plan.model import Charge

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.size import Bytes

__all__ = ["Budget", "budgets_of"]

DEFAULT_HEADROOM = Percent(Decimal(15))


@dataclass(frozen=True, slots=True)
class Budget:
    """One offered device. All figures in bytes."""

    device: Device
    capacity: int | None
    """What `max_memory` or the machine says; None for a disk without a limit."""
    headroom: int | Percent = 0
    """What stays free, in bytes or as a share of the capacity."""

    @property
    def headroom_bytes(self) -> int:
        """What stays free, never more than the capacity."""
        if self.capacity is None:
            return 0
        asked = self.headroom.of(self.capacity) if isinstance(self.headroom, Percent) else self.headroom
        return min(asked, self.capacity)

    @property
    def usable_bytes(self) -> int | None:
        """What weights, workload and slots may take; None without a limit."""
        return None if self.capacity is None else self.capacity - self.headroom_bytes

    @property
    def charges(self) -> tuple[Charge, ...]:
        """The headroom as a charge, where there is one."""
        if not self.headroom_bytes:
            return ()
        assert self.capacity is not None
        arithmetic = (
            f"{self.headroom} of {format_bytes(self.capacity)}"
            if isinstance(self.headroom, Percent)
            else "as configured"
        )
        return (Charge("headroom", self.headroom_bytes, arithmetic),)

    def raised(self, nbytes: int) -> Budget:
        """Return the same device with `nbytes` more capacity."""
        return self if self.capacity is None else replace(self, capacity=self.capacity + nbytes)


def budgets_of(config: PlacementConfig, machine: MachineProfile | None) -> tuple[Budget, ...]:
    """Return the offered devices in tier order.

    Accelerators by index, then cpu and disk where they are offered.

    `cpu` is offered by `max_memory`, or by the machine where `max_memory` is left out; `disk` by `max_memory`
    or an offload folder.

    Raises:
        ResolutionError: when a share of a device's memory, or a config without `max_memory`, needs a machine
            and none is known.
    """
    amounts: dict[Device, Bytes | Percent | None] = {}
    if config.max_memory is not None:
        amounts.update(config.max_memory)
    elif machine is None:
        raise ResolutionError(
            "the config has no 'max_memory' and names no machine, so the budgets are unknown",
            help="add max_memory: {0: 20GB, cpu: 100GB}, or machine: 2x4090",
        )
    else:
        amounts.update(
            {device: known.memory for device, known in machine.devices.items() if device.tier != Tier.DISK}
        )
    if config.offload.folder is not None:
        for node in (machine.nodes if machine is not None else ()) or (None,):
            amounts.setdefault(DISK.on(node), None)
    in_bytes = config.max_memory is not None
    # One object for each lower tier: `==` and `in` compare identity first, which is fast in loops over 10^5
    # atoms.
    one = {CPU: CPU, DISK: DISK}
    return tuple(
        _budget(one.get(device, device), amounts[device], config, machine, in_bytes=in_bytes)
        for device in sorted(amounts)
    )


def _budget(
    device: Device,
    amount: Bytes | Percent | None,
    config: PlacementConfig,
    machine: MachineProfile | None,
    *,
    in_bytes: bool,
) -> Budget:
    share = isinstance(amount, Percent)
    capacity = amount.of(_memory(device, machine)) if isinstance(amount, Percent) else amount
    asked = config.headroom.of(device) if config.headroom is not None else None
    if asked is None:
        asked = DEFAULT_HEADROOM if device.is_accelerator and (share or not in_bytes) else None
    return Budget(
        device, capacity, 0 if asked is None or (device.tier == Tier.DISK and capacity is None) else asked
    )


def _memory(device: Device, machine: MachineProfile | None) -> int:
    known = machine.devices.get(device) if machine is not None else None
    if known is not None:
        return known.memory
    where = (
        f"the machine '{machine.name}' has no device {device}"
        if machine is not None
        else "no machine is given"
    )
    raise ResolutionError(
        f"max_memory gives {device_name(device)} a share of its memory, and {where}",
        help=f"write bytes, such as {device}: 20GB, or name a machine, such as machine: 2x4090",
    )
