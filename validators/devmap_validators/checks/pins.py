"""Devices that a map pins too much on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap_validators.checks.capacity import capacity, headroom
from devmap_validators.checks.config_map import pinned_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.findings.context import Context

__all__ = ["OverfullDevice", "pins_over_budget"]


@dataclass(frozen=True, slots=True)
class OverfullDevice:
    """A device, what the map pins on it and what it may hold after headroom, in bytes.

    And the keys that pin it.
    """

    device: Device
    used_bytes: int
    budget_bytes: int
    keys: tuple[str, ...]


def pins_over_budget(context: Context) -> Iterator[OverfullDevice]:
    """Yield the devices whose pinned weights are more than their budget, in tier order."""
    config = context.document.config
    if config is None or config.takes_turns:  # what is pinned is not there at once
        return
    for device, used in sorted(pinned_bytes(context).items()):
        total = capacity(context, device)
        if total is None:
            continue
        budget = max(0, total - headroom(context, device))
        if used > budget:
            keys = tuple(key for key, target in config.device_map.items() if target == device)
            yield OverfullDevice(device, used, budget, keys)
