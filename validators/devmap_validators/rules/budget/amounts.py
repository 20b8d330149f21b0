"""DM404, DM405, DM406, DM410, DM411: budgets and headroom, device by device."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import Percent
from devmap.config.values.strategy import Strategy, WorkloadKind
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import (
    capacity,
    device_path,
    headroom,
    machine_memory,
    offered_devices,
)
from devmap_validators.checks.wording import devices_in_words, exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context

__all__ = ["RULES"]


def _budget_near_capacity(context: Context) -> Iterator[Report]:
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


DM404 = Rule(
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
    check=_budget_near_capacity,
)


def _zero_budget(context: Context) -> Iterator[Report]:
    config = context.document.config
    for device, amount in (config.max_memory or {} if config is not None else {}).items():
        if (amount.value if isinstance(amount, Percent) else amount) == 0:
            message = f"{device_name(device)} is offered with a budget of 0"
            yield Report(
                message,
                device_path(context, ("max_memory",), device),
                help="leave the device out, or give it a size",
            )


DM405 = Rule(
    code="DM405",
    name="zero-budget",
    severity=Severity.WARNING,
    summary="A device is offered with nothing on it",
    why=(
        "A budget of 0 keeps a device empty, but it still counts as offered: some strategies of other "
        "tools then place "
        "everything on the wrong device. Leaving it out says the same."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 1: 0}
""",
    check=_zero_budget,
)


def _headroom_takes_all(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.headroom is None:
        return
    eaten: dict[DocumentPath, list[Device]] = defaultdict(list)
    for device in sorted(offered_devices(context) or ()):
        budget = capacity(context, device)
        if budget and headroom(context, device) >= budget:
            eaten[device_path(context, ("headroom",), device)].append(device)
    for path, devices in eaten.items():
        first = devices[0]
        more = f", nor of {devices_in_words(devices[1:])}" if len(devices) > 1 else ""
        kept, total = exact_bytes(headroom(context, first)), exact_bytes(capacity(context, first) or 0)
        message = f"headroom of {kept} leaves nothing of the {total} of {device_name(first)}{more}"
        yield Report(message, path, help="10% to 20% is usual")


DM406 = Rule(
    code="DM406",
    name="headroom-takes-all",
    severity=Severity.ERROR,
    summary="Headroom leaves nothing of a device's budget",
    why="What stays free is as large as what the device may hold, so no weight can be placed there.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: 10%
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
headroom: 100%
""",
    check=_headroom_takes_all,
)


def _budget_above_capacity(context: Context) -> Iterator[Report]:
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


DM410 = Rule(
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
    check=_budget_above_capacity,
)


def _empty_accelerator(context: Context) -> Iterator[Report]:
    plan, config = context.plan, context.document.config
    if plan is None or config is None:
        return
    if plan.pipeline is not None:
        return  # each accelerator has a stage; where its weights are on its node's cpu, DM403 says so
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


DM411 = Rule(
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
    check=_empty_accelerator,
)


RULES = (DM404, DM405, DM406, DM410, DM411)
