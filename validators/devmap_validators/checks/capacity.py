"""What the devices of a config may hold, as far as the config and the machine that it names say so."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from devmap.config.model.nodes import known_device
from devmap.config.values.device import Tier
from devmap.config.values.size import Bytes, Percent

if TYPE_CHECKING:
    from devmap.config.values.device import Device
    from devmap.findings.context import Context

__all__ = ["capacity", "headroom", "machine_memory"]

_DEFAULT_HEADROOM = Percent(Decimal(15))


def machine_memory(context: Context, device: Device) -> int | None:
    """Return the memory of a device of the machine that the config names, in bytes.

    None where no machine says so.
    """
    found = known_device(context.machine, device)
    return found.memory if found is not None else None


def capacity(context: Context, device: Device) -> int | None:
    """Return what `max_memory` gives a device, else all of its memory, in bytes.

    None where nothing says, as for a disk that is a folder.
    """
    config = context.document.config
    memory = machine_memory(context, device)
    if config is None or config.max_memory is None:
        return None if device.tier == Tier.DISK else memory
    amount = config.max_memory.get(device, config.max_memory.get(device.on(None)))
    if isinstance(amount, Percent):
        return None if memory is None else amount.of(memory)
    return amount


def headroom(context: Context, device: Device) -> int:
    """Return what stays free on a device, in bytes.

    What the config says, else 15% of an accelerator whose budget is not given in bytes.
    """
    config = context.document.config
    total = capacity(context, device)
    if config is None or total is None:
        return 0
    said: Bytes | Percent | None = config.headroom.of(device) if config.headroom is not None else None
    if said is None and device.is_accelerator:
        in_bytes = config.max_memory is not None and not isinstance(
            config.max_memory.get(device, config.max_memory.get(device.on(None))), Percent
        )
        said = None if in_bytes else _DEFAULT_HEADROOM
    if said is None:
        return 0
    return said.of(total) if isinstance(said, Percent) else said
