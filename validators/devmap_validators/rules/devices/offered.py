"""DM301, DM302, DM304, DM308, DM309, DM311, DM312: which devices a config offers, and which it names."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from devmap.config.model.nodes import called, spread_keys
from devmap.config.values.device import Device, Tier, device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import (
    device_path,
    devices_named,
    is_of_absent_node,
    is_offered,
    map_path,
    nodes_of,
    offered_devices,
)
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _device_without_budget(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or config.max_memory is None or offered is None:
        return
    for key, target in config.device_map.items():
        if isinstance(target, Device) and target.is_accelerator and not is_offered(context, target):
            if is_of_absent_node(context, target):
                continue  # DM704 says that there is no such node
            hint = (
                f"offered: {devices_in_words(offered)}; add '{target}: SIZE' to "
                "max_memory, or choose another device"
            )
            yield Report(f"device {target} is not in max_memory", map_path(context, key), help=hint)


DM301 = Rule(
    code="DM301",
    name="device-without-budget",
    severity=Severity.ERROR,
    summary="An accelerator that `max_memory` does not offer",
    why=(
        "`max_memory` names the devices that may be used. A module that is put on another one has no "
        "budget to be checked "
        "against, and on a machine with fewer devices the load fails."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB}
""",
    check=_device_without_budget,
)


def _device_not_in_machine(context: Context) -> Iterator[Report]:
    if context.machine is None or not context.machine.devices:
        return
    known = context.machine.devices
    for device, path in devices_named(context):
        if is_of_absent_node(context, device):
            continue  # DM704 says that there is no such node
        # A machine profile need not measure its disk.
        if device.tier != Tier.DISK and not any(own in known for own in called(device, context.machine)):
            name = f"the machine '{context.machine.name}'" if context.machine.name else "the machine"
            on_key = path[:1] != ("device_map",)
            yield Report(
                f"{name} has no {device_name(device)}",
                path,
                on_key=on_key,
                help=f"it has {devices_in_words(known)}",
            )


DM302 = Rule(
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
    check=_device_not_in_machine,
)


def _tier_not_offered(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or offered is None:
        return
    for key, target in config.device_map.items():
        if isinstance(target, Device) and not target.is_accelerator and not is_offered(context, target):
            if is_of_absent_node(context, target):
                continue  # DM704 says that there is no such node
            or_folder = " or name offload.folder" if target.tier == Tier.DISK else ""
            hint = f"offered: {devices_in_words(offered)}; add '{target}: SIZE' to max_memory{or_folder}"
            yield Report(f"{target} is used but not offered", map_path(context, key), help=hint)


DM304 = Rule(
    code="DM304",
    name="tier-not-offered",
    severity=Severity.ERROR,
    summary="Modules on cpu or disk, which the config does not offer",
    why=(
        "Weights go to host memory or disk only where the config says how much of it they may take. A map "
        "that puts them there "
        "without a budget would fill a machine that others use."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': cpu}
max_memory: {0: 3GB, cpu: 2GB}
workload: inference
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': cpu}
max_memory: {0: 2GB}
""",
    check=_tier_not_offered,
)


def _device_gap(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.max_memory is None:
        return
    # a key without a node offers the device of that name on each node, and numbers count within a node
    offered, _ = spread_keys(config.max_memory, context.machine)
    used = sorted((device for device in offered if device.is_accelerator), key=_by_node)
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


def _by_node(device: Device) -> tuple[str, int]:
    return device.node or "", device.index or 0


def _node(device: Device) -> str | None:
    return device.node


DM308 = Rule(
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
    check=_device_gap,
)


def _no_accelerator(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or not offered or any(device.is_accelerator for device in offered):
        return
    if nodes_of(context) is not None:
        return  # a stage needs an accelerator: DM704 says which nodes have none
    path = ("max_memory",) if config.max_memory is not None else ("machine",)
    message = (
        f"only {devices_in_words(offered)} {'is' if len(offered) == 1 else 'are'} "
        "offered: the model runs on the CPU"
    )
    yield Report(message, path, on_key=True, help="add an accelerator such as '0: 20GB' if there is one")


DM309 = Rule(
    code="DM309",
    name="no-accelerator",
    severity=Severity.NOTE,
    summary="Nothing but cpu and disk is offered",
    why=(
        "The model runs on the CPU. That is right for small models and for tests; otherwise an "
        "accelerator is missing from `max_memory`."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {cpu: 2GB}
""",
    check=_no_accelerator,
)


def _unused_accelerators(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.max_memory is None or context.machine is None:
        return
    unused = [
        device
        for device in context.machine.devices
        if device.is_accelerator and not is_offered(context, device)
    ]
    if unused:
        message = f"the machine also has {devices_in_words(unused)}, which max_memory does not offer"
        yield Report(message, ("max_memory",), on_key=True, help="add them, unless they are left to others")


DM311 = Rule(
    code="DM311",
    name="unused-accelerators",
    severity=Severity.NOTE,
    summary="The machine has accelerators that `max_memory` does not offer",
    why="They stay empty, while weights may go to cpu or disk. They may be left to others on purpose.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 1: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    check=_unused_accelerators,
)


def _headroom_without_device(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or config.headroom is None or offered is None:
        return
    for device in config.headroom.devices:
        if not is_offered(context, device) and not is_of_absent_node(context, device):
            path = device_path(context, ("headroom",), device)
            message = f"headroom for {device_name(device)}, which is not offered"
            yield Report(message, path, on_key=True, help=f"offered: {devices_in_words(offered)}")


DM312 = Rule(
    code="DM312",
    name="headroom-without-device",
    severity=Severity.WARNING,
    summary="Headroom for a device that is not used",
    why=(
        "The amount is kept free on a device that holds nothing, so it has no effect: the index is wrong, "
        "or the device was "
        "taken out of `max_memory`."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: {0: 10%}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
headroom: {1: 10%}
""",
    check=_headroom_without_device,
)


RULES = (DM301, DM302, DM304, DM308, DM309, DM311, DM312)
