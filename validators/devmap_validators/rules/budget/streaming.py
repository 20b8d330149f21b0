"""DM403, DM407, DM408, DM409: what leaves the accelerators, and the room to bring it back."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import DISK, Device, Tier, device_name
from devmap.config.values.strategy import Strategy
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.quantizing import largest_conversion
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.config_map import (
    assignment_of,
    capacity,
    device_path,
    headroom,
    is_offered,
    map_path,
    offered_devices,
    pinned_bytes,
    runs_by_key,
)
from devmap_validators.checks.wording import counted, exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _stream_without_slots(context: Context) -> Iterator[Report]:
    plan, config = context.plan, context.document.config
    if plan is None or not any(use.device.is_accelerator for use in plan.devices):
        return
    largest: dict[Device, int] = defaultdict(int)
    for placement in plan.streamed:
        if placement.executes_on.is_accelerator:
            largest[placement.executes_on] = max(largest[placement.executes_on], placement.nbytes)
    for use in plan.devices:
        slots = sum(charge.nbytes for charge in use.charges if charge.what == "slots")
        block = largest[use.device]
        if use.device.is_accelerator and block and slots < 2 * block:
            message = (
                f"device {use.device} has room for one slot of {exact_bytes(block)}: "
                "copies cannot overlap with compute"
            )
            hint = f"free {exact_bytes(2 * block - slots)} more on it for a second slot"
            yield Report(message, device_path(context, ("max_memory",), use.device), help=hint)
    in_place = [
        placement
        for placement in plan.placements
        if placement.home.tier == Tier.CPU and placement.home == placement.executes_on and placement.nbytes
    ]
    chosen = (
        config is not None and Strategy.FASTEST in config.device_map.values()
    )  # it computes in place where that is faster
    if in_place and not chosen:
        block = max(placement.nbytes for placement in in_place)
        modules = f"{counted(len(in_place), 'module')} on cpu {'is' if len(in_place) == 1 else 'are'}"
        message = f"{modules} computed in place: no accelerator has room for a slot"
        hint = (
            f"'{in_place[0].path}' is the first; a slot of {exact_bytes(block)} "
            "on an accelerator would stream them"
        )
        yield Report(message, ("max_memory",), on_key=True, help=hint)


DM403 = Rule(
    code="DM403",
    name="stream-without-slots",
    severity=Severity.WARNING,
    summary="Weights are streamed and there is no room for two slots",
    why=(
        "A streamed block is copied into a slot on the accelerator. With two slots the next block is "
        "copied while this one "
        "computes. With one, every copy is waited for; with none, the block is computed on the CPU."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, cpu: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 300MB, cpu: 2GB}
""",
    check=_stream_without_slots,
)


def _everything_on_disk(context: Context) -> Iterator[Report]:
    config, assignment, inventory = context.document.config, assignment_of(context), context.inventory
    if config is None or assignment is None or inventory is None:
        return
    if context.plan is not None:
        all_there = bool(context.plan.placements) and all(
            placement.home == DISK for placement in context.plan.placements
        )
    else:
        all_there = bool(assignment.runs) and all(
            run.path is not None and assignment.by_path[run.path] == DISK for run in assignment.runs
        )
    if all_there:
        message = (
            "all weights lie on disk: each pass reads "
            f"{exact_bytes(run_bytes(inventory, inventory.tensors, config.model.dtype))}"
        )
        yield Report(
            message, ("device_map",), help="offer an accelerator or cpu memory for what is used in every pass"
        )


DM407 = Rule(
    code="DM407",
    name="everything-on-disk",
    severity=Severity.WARNING,
    summary="All weights lie on disk",
    why=(
        "Each pass then reads the whole model from disk: a disk of 3 GB/s gives 70B parameters in "
        "bfloat16 one token in 47 seconds."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': disk, lm_head: 0, model.embed_tokens: 0}
max_memory: {0: 300MB, disk: 10GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: disk
max_memory: {0: 2GB, disk: 10GB}
""",
    check=_everything_on_disk,
)


def _needless_spill(context: Context) -> Iterator[Report]:
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


DM408 = Rule(
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
    check=_needless_spill,
)


def _host_memory_too_small(context: Context) -> Iterator[Report]:
    config, plan = context.document.config, context.plan
    if config is None or plan is None:
        return
    allowed = config.offload.host_memory
    if context.inventory is not None:
        module, needed = largest_conversion(context.inventory)
        if allowed < needed:
            yield _report(
                context,
                f"host_memory is {exact_bytes(allowed)}, and to quantise '{module}' while it is loaded takes "
                f"{exact_bytes(needed)}",
                f"give it {exact_bytes(needed)}, or name '{module}' among the modules that stay whole",
                severity=Severity.ERROR,
            )
            return
    read = [placement for placement in plan.streamed if placement.home == DISK]
    if not read:
        return
    largest = max(read, key=lambda placement: placement.nbytes)
    if allowed < 2 * largest.nbytes:
        yield _report(
            context,
            f"host_memory is {exact_bytes(allowed)}, and '{largest.path}' alone is read "
            f"from disk with {exact_bytes(largest.nbytes)}",
            f"give it {exact_bytes(2 * largest.nbytes)}: room for two blocks",
        )


def _report(context: Context, message: str, hint: str, *, severity: Severity | None = None) -> Report:
    offload = (context.document.data or {}).get("offload")
    written = isinstance(offload, dict) and "host_memory" in offload
    path = ("offload", "host_memory") if written else ("max_memory",)
    return Report(message, path, on_key=not written, help=hint, severity=severity)


DM409 = Rule(
    code="DM409",
    name="host-memory-too-small",
    severity=Severity.WARNING,
    summary="`offload.host_memory` holds less than two of the largest streamed block, or than quantising one",
    why=(
        "Blocks are read into host memory before they are copied. With room for one only, reading waits "
        "for copying, and "
        "neither runs at its own speed. A weight that is quantised while it is loaded is whole in host "
        "memory for that time, with what the library's kernels take beside it: with less than that the load "
        "is refused."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, disk: 2GB}
offload: {host_memory: 1GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 1.2GB, disk: 2GB}
offload: {host_memory: 300MB}
""",
    check=_host_memory_too_small,
)


RULES = (DM403, DM407, DM408, DM409)
