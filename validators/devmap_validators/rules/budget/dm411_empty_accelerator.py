"""DM411: an accelerator that is offered stays empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.strategy import Strategy, WorkloadKind
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    plan, config = context.plan, context.document.config
    if plan is None or config is None:
        return
    lowest = min((use.device for use in plan.devices if use.device.is_accelerator), default=None)
    empty = [
        use.device
        for use in plan.devices
        if use.device.is_accelerator and not use.weight_bytes and use.capacity_bytes != 0
    ]
    executing = {placement.executes_on for placement in plan.placements}
    idle = [device for device in empty if device not in executing]
    serves = config.workload is not None and config.workload.kind is WorkloadKind.SERVER
    if serves or Strategy.BALANCED_LOW_0 in config.device_map.values():
        idle = [
            device for device in idle if device != lowest
        ]  # an empty first accelerator is what was asked for
    if idle:
        section = ("max_memory",) if config.max_memory is not None else ("device_map",)
        path = device_path(context, section, idle[0]) if config.max_memory is not None else section
        message = f"the plan leaves {devices_in_words(idle)} empty"
        yield Report(
            message, path, on_key=True, help="'device_map: balanced' spreads the model over all accelerators"
        )


RULE = Rule(
    code="DM411",
    name="empty-accelerator",
    severity=Severity.NOTE,
    summary="An accelerator that is offered stays empty",
    why="The plan puts nothing on it. A smaller machine would do as well, or a strategy such as "
    "`balanced` would use it.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: balanced
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: sequential
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
