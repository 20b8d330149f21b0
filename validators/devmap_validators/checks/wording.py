"""Sentences that the rules over a config and the checks of a plain map share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import format_bytes
from devmap_validators.checks.assignment import run_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap_validators.checks.assignment import SplitBlock

__all__ = ["devices_in_words", "exact_bytes", "over_budget", "split_block", "split_tie"]


def devices_in_words(devices: Iterable[Device]) -> str:
    """Devices in tier order: `device 0, device 1 and cpu`; `none` for none."""
    names = [device_name(device) for device in sorted(set(devices))]
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def exact_bytes(count: int) -> str:
    """Return the bytes in a short and an exact form where both help.

    `21.4 GB`, or the bytes alone below a megabyte.
    """
    return format_bytes(count) if abs(count) >= 1_000_000 else f"{count:,} byte{'' if count == 1 else 's'}"


def over_budget(device: Device, used_bytes: int, budget_bytes: int) -> str:
    """Return a device was given more than it may hold."""
    used, budget, short = (
        exact_bytes(count) for count in (used_bytes, budget_bytes, used_bytes - budget_bytes)
    )
    return f"{device_name(device)} is given {used} of weights and may hold {budget}: {short} too much"


def split_block(block: SplitBlock) -> str:
    """Return a block that may not be split lies on several devices."""
    where = ", ".join(
        f"'{_inside(block.path, name)}' on {device_name(device)}" for device, name in block.parts[:3]
    )
    devices = devices_in_words(device for device, _ in block.parts)
    it = f"'{block.path}'" if block.path else "the whole model"
    return f"{it} is a {block.class_name}, which may not be split, but lies on {devices} ({where})"


def split_tie(inventory: Inventory, placed: Sequence[tuple[str, Device]], dtype: str | None) -> str:
    """Tied tensors lie on several devices."""
    nbytes = run_bytes(inventory, [placed[0][0]], dtype)
    copies = len({device for _, device in placed}) - 1
    names = " and ".join(f"'{name}' on {device_name(device)}" for name, device in placed[:3])
    return (
        f"tied weights lie apart: {names}; the "
        f"{'copy costs' if copies == 1 else f'{copies} copies cost'} "
        f"{exact_bytes(copies * nbytes)}"
    )


def _inside(block: str, name: str) -> str:
    return name[len(block) + 1 :] if block else name
