"""DM308: the accelerators' indexes have a gap."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.max_memory is None:
        return
    used = sorted(device for device in config.max_memory if device.is_accelerator)
    for number, device in ((at, one) for _, own in groupby(used, _node) for at, one in enumerate(own)):
        if device.index != number:
            gap = (
                f"accelerator {number} is left out"
                if device.index == number + 1
                else f"accelerators {number} to {device.index - 1} are left out"
            )
            hint = "with CUDA_VISIBLE_DEVICES the visible ones are numbered from 0"
            yield Report(gap, device_path(context, ("max_memory",), device), on_key=True, help=hint)
            return


def _node(device: Device) -> str | None:
    return device.node


RULE = Rule(
    code="DM308",
    name="device-gap",
    severity=Severity.NOTE,
    summary="The accelerators' indexes have a gap",
    why=(
        "Indexes with gaps are allowed, and mean that a device is left to others. Where that is not "
        "meant, one of the indexes "
        "is wrong, or CUDA_VISIBLE_DEVICES renumbers them."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 2: 2GB}
""",
    check=_check,
)
