"""A device map in a program, checked without a config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.config.values.size import parse_size
from devmap.errors import DeviceMapError
from devmap.findings.model import Severity
from devmap.inventory.bulk import collector_paused
from devmap_validators.checks.device_map import device_map_findings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.inventory.model import Inventory

__all__ = ["check_device_map"]


@collector_paused()
def check_device_map(
    inventory: Inventory,
    device_map: Mapping[str, int | str],
    no_split_module_classes: Sequence[str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
) -> None:
    """Check that a device map fits a model.

    Every parameter and buffer is covered, every key names something, no class of `no_split_module_classes`
    (default: the inventory's) is spread over devices, tied tensors are together, and no device of
    `max_memory` (bytes, or text such as `20GB`) holds more than it may.

    Raises:
        DeviceMapError: listing every error; a warning alone raises nothing.
        ValueError: when a key or value of `max_memory` is no device or no size.
    """
    budgets = (
        None
        if max_memory is None
        else {parse_device(device): parse_size(size) for device, size in max_memory.items()}
    )
    findings = device_map_findings(
        inventory, device_map, no_split_module_classes=no_split_module_classes, max_memory=budgets
    )
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
        raise DeviceMapError(f"the device map does not fit the model: {count}", problems=errors)
