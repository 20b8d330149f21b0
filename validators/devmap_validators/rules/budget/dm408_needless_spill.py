"""DM408: a key puts weights on cpu or disk although an accelerator has room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.capacity import capacity, headroom
from devmap_validators.checks.config_map import (
    is_offered,
    map_path,
    offered_devices,
    pinned_bytes,
    runs_by_key,
)
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.workload is not None:
        return  # with a workload, room that looks free is kept for its cache or its gradients
    offered = offered_devices(context) or frozenset()
    free = {
        device: room for device in offered if device.is_accelerator and (room := _room(context, device)) > 0
    }
    for key, runs in runs_by_key(context).items():
        target = config.device_map[key]
        if not isinstance(target, Device) or target.is_accelerator or not is_offered(context, target):
            continue
        names = [name for run in runs for name in inventory.flat_index.tensors[run.start : run.end]]
        nbytes = run_bytes(inventory, names, config.model.dtype)
        fitting = [device for device in sorted(free) if free[device] >= nbytes]
        if nbytes and fitting:
            message = (
                f"{exact_bytes(nbytes)} go to {target}, and device {fitting[0]} "
                f"has {exact_bytes(free[fitting[0]])} free"
            )
            hint = f"put it on {device_name(fitting[0])}, unless the room is kept for something else"
            yield Report(message, map_path(context, key), help=hint)


def _room(context: Context, device: Device) -> int:
    """Return what a device has left, in bytes: by the plan where there is one, else by what the map pins."""
    use = context.plan.use_of(device) if context.plan is not None else None
    if use is not None:
        slots = sum(charge.nbytes for charge in use.charges if charge.what == "slots")
        return (use.free_bytes or 0) + slots
    return (capacity(context, device) or 0) - headroom(context, device) - pinned_bytes(context).get(device, 0)


RULE = Rule(
    code="DM408",
    name="needless-spill",
    severity=Severity.WARNING,
    summary="A key puts weights on cpu or disk although an accelerator has room for them",
    why="What lies on cpu or disk is copied in each pass. Where an accelerator has room to hold it, that "
    "is time for nothing.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB, cpu: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers.3': cpu}
max_memory: {0: 4GB, cpu: 2GB}
""",
    check=_check,
)
