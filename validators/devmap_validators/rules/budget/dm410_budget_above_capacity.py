"""DM410: a budget is larger than the device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.capacity import capacity, machine_memory
from devmap_validators.checks.config_map import device_path
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    for device in config.max_memory or () if config is not None else ():
        memory, budget = machine_memory(context, device), capacity(context, device)
        if memory is not None and budget is not None and budget > memory:
            message = (
                f"{device_name(device)} has {exact_bytes(memory)}, and "
                f"max_memory gives it {exact_bytes(budget)}"
            )
            yield Report(
                message,
                device_path(context, ("max_memory",), device),
                help=f"give at most {exact_bytes(memory * 9 // 10)}",
            )


RULE = Rule(
    code="DM410",
    name="budget-above-capacity",
    severity=Severity.ERROR,
    summary="A budget is larger than the device's memory",
    why="No device holds more than it has. The size has the wrong unit, or the machine is another.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3.5GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 40GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    check=_check,
)
