"""DM303, DM307, DM310: the machine that a config is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.nodes import known_device
from devmap.config.values.device import Tier, device_name
from devmap.config.values.size import Percent
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path, devices_named, machine_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _mixed_backends(context: Context) -> Iterator[Report]:
    first: str | None = None
    for device, path in devices_named(context):
        if device.backend is None:
            continue
        first = first or device.backend
        if device.backend != first:
            message = (
                f"'{device.backend}:{device.index}' beside '{first}' devices: one "
                "process runs on one kind of accelerator"
            )
            on_key = path[:1] != ("device_map",)
            yield Report(
                message,
                path,
                on_key=on_key,
                help="write plain indexes (0, 1) to leave the kind to the machine",
            )


DM303 = Rule(
    code="DM303",
    name="mixed-backends",
    severity=Severity.ERROR,
    summary="Accelerators of several kinds in one config",
    why="`cuda:0` and `xpu:1` are devices of two builds of torch. One process runs on one kind of "
    "accelerator beside the CPU.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 'cuda:0', 'model.layers[2-3]': 'cuda:1'}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 'cuda:0', 'model.layers[2-3]': 'xpu:1'}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_mixed_backends,
)


def _percent_without_machine(context: Context) -> Iterator[Report]:
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


DM307 = Rule(
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
    check=_percent_without_machine,
)


def _unknown_machine(context: Context) -> Iterator[Report]:
    error = context.machine_error
    if error is None:
        return
    path = error.path or ("machine",)
    yield Report(error.message, path, help=error.help or "name a preset, or a file that devmap doctor wrote")
    for problem in error.problems:
        yield Report(problem.message, path)


DM310 = Rule(
    code="DM310",
    name="unknown-machine",
    severity=Severity.ERROR,
    summary="The machine is neither a preset nor a readable file",
    why="The machine gives budgets, rates and devices to check against. Without it the config is only "
    "half checked.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
machine: 2x9999
""",
    check=_unknown_machine,
)


RULES = (DM303, DM307, DM310)
