"""DM302: a device that the machine does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.nodes import called
from devmap.config.values.device import Tier, device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import devices_named
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.machine is None or not context.machine.devices:
        return
    known = context.machine.devices
    for device, path in devices_named(context):
        # A machine profile need not measure its disk.
        if device.node is not None and device.node not in context.machine.nodes:
            continue  # DM704 says that there is no such node
        if device.tier != Tier.DISK and not any(own in known for own in called(device, context.machine)):
            name = f"the machine '{context.machine.name}'" if context.machine.name else "the machine"
            on_key = path[:1] != ("device_map",)
            yield Report(
                f"{name} has no {device_name(device)}",
                path,
                on_key=on_key,
                help=f"it has {devices_in_words(known)}",
            )


RULE = Rule(
    code="DM302",
    name="device-not-in-machine",
    severity=Severity.ERROR,
    summary="A device that the machine does not have",
    why="The machine profile lists what is there. A map or budget for another device cannot run on that "
    "machine.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 2: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    check=_check,
)
