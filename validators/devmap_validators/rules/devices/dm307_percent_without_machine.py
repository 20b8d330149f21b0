"""DM307: a share of a device's memory, and no machine that says how much that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.nodes import known_device
from devmap.config.values.device import Tier, device_name
from devmap.config.values.size import Percent
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.capacity import machine_memory
from devmap_validators.checks.config_map import device_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or context.machine_error is not None:
        return
    for device, amount in (config.max_memory or {}).items():
        known = known_device(context.machine, device)
        if device.tier != Tier.DISK and context.machine is not None and known is None:
            continue  # DM302 says that the machine does not have it
        if isinstance(amount, Percent) and machine_memory(context, device) is None:
            message = (
                f"{amount} of {device_name(device)} cannot be checked: no machine says how much memory it has"
            )
            hint = "name a machine (machine: 2x4090, or a file that devmap doctor wrote), or give the size"
            yield Report(message, device_path(context, ("max_memory",), device), help=hint)


RULE = Rule(
    code="DM307",
    name="percent-without-machine",
    severity=Severity.WARNING,
    summary="A share of a device's memory, and no machine that says how much that is",
    why=(
        "A percentage can only be checked where the memory is known. Without `machine` it means the "
        "machine that the config is "
        "loaded on, and the checks say nothing about the budgets."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 90%, 1: 90%}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 90%, 1: 90%}
""",
    check=_check,
)
