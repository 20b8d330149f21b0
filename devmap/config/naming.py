"""What sentences call devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.device import Device

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["device_name", "device_names"]

_FEW = 2
"""Accelerators in a row up to which each is named."""


def device_name(device: object) -> str:
    """A device, or another target of a map: `device 0`, `cpu`, `disk`, `balanced`."""
    return f"device {device}" if isinstance(device, Device) and device.is_accelerator else str(device)


def device_names(devices: Iterable[Device], word: str = "and") -> str:
    """Several devices in tier order, with accelerators whose indices follow each other as one range; `none` for none.

    >>> from devmap.config.device import parse_device
    >>> device_names([parse_device(key) for key in (0, 1, "cpu")])
    'device 0, device 1 and cpu'
    >>> device_names([parse_device(key) for key in (0, 1, 2, 3, 6)], "or")
    'devices 0 to 3 or device 6'
    """
    stretches: list[list[Device]] = []
    for device in sorted(set(devices)):
        if stretches and device.is_accelerator and stretches[-1][-1].is_accelerator and device.index == stretches[-1][-1].index + 1:
            stretches[-1].append(device)
        else:
            stretches.append([device])
    named: list[str] = []
    for stretch in stretches:
        if len(stretch) > _FEW:
            named.append(f"devices {stretch[0]} to {stretch[-1]}")
        else:
            named += [device_name(device) for device in stretch]
    if not named:
        return "none"
    *first, last = named
    return f"{', '.join(first)} {word} {last}" if first else last
