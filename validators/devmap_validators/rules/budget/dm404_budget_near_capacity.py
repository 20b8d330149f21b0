"""DM404: a budget above 90% of the device's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.capacity import capacity, headroom, machine_memory
from devmap_validators.checks.config_map import device_path
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None:
        return
    for device in config.max_memory or ():
        memory, budget = machine_memory(context, device), capacity(context, device)
        if memory is None or budget is None or not device.is_accelerator or budget > memory:
            continue
        kept = headroom(context, device)
        if (budget - kept) * 10 > memory * 9:
            share = f"{100 * (budget - kept) / memory:.0f}%"
            message = (
                f"{exact_bytes(budget - kept)} is {share} of the "
                f"{exact_bytes(memory)} that device {device} has"
            )
            hint = f"stay below 90% ({exact_bytes(memory * 9 // 10)}), or give it headroom"
            yield Report(message, device_path(context, ("max_memory",), device), help=hint)


RULE = Rule(
    code="DM404",
    name="budget-near-capacity",
    severity=Severity.WARNING,
    summary="A budget above 90% of the device's memory",
    why=(
        "The driver, the CUDA context and fragmentation take one to two gigabytes that no plan sees. A "
        "budget that leaves less "
        "than a tenth runs out of memory at the first long input."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3.5GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3.8GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    check=_check,
)
