"""What a config says of its model and devices, worked out once for all rules.

What its map puts where, which devices it offers and what they may hold; and where that stands in the
document.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from devmap.config.model.nodes import called, known_device, spread_keys
from devmap.config.values.device import DISK, Device, Tier, parse_device
from devmap.config.values.size import Bytes, Percent
from devmap_validators.checks.assignment import Assignment, assign, bytes_on_devices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from devmap.config.model.placement_config import MachineProfile
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context
    from devmap.inventory.flat_index import PathInterval

__all__ = [
    "anchors_of",
    "assignment_of",
    "capacity",
    "device_path",
    "devices_named",
    "headroom",
    "is_of_absent_node",
    "is_offered",
    "machine_memory",
    "map_path",
    "no_split_classes",
    "nodes_of",
    "offered_devices",
    "pinned_bytes",
    "quoted",
    "runs_by_key",
]


@lru_cache(maxsize=4)
def assignment_of(context: Context) -> Assignment | None:
    """Return what the map's keys, ranges and globs expanded, say of each tensor.

    None without a config or an inventory.
    """
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None or context.inventory is None:
        return None
    return assign(
        context.inventory, {path: config.device_map[key] for path, key in expansion.anchors.items()}
    )


@lru_cache(maxsize=4)
def pinned_bytes(context: Context) -> Mapping[Device, int]:
    """Return the bytes of weights that the map itself puts on each device, at the run dtype.

    What a strategy places does not count.
    """
    assignment, config = assignment_of(context), context.document.config
    if assignment is None or config is None:
        return {}
    return bytes_on_devices(assignment, config.model.dtype)


def anchors_of(context: Context, tensors: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the map that decide these tensors, each once, in the tensors' order."""
    assignment, expansion = assignment_of(context), context.expansion
    if assignment is None or expansion is None:
        return ()
    paths = [assignment.path_of(name) for name in tensors]
    return tuple(dict.fromkeys(expansion.anchors[path] for path in paths if path is not None))


def no_split_classes(context: Context) -> tuple[str, ...]:
    """Return the classes that may not be split: the config's, else the inventory's."""
    config, inventory = context.document.config, context.inventory
    if config is not None and config.no_split_module_classes is not None:
        return tuple(config.no_split_module_classes)
    return inventory.no_split_module_classes if inventory is not None else ()


def offered_devices(context: Context) -> frozenset[Device] | None:
    """Return the devices that weights may lie on.

    None where that is this machine's affair (no `max_memory`, no `machine`).
    """
    config = context.document.config
    if config is None:
        return None
    disk = {*called(DISK, context.machine)} if config.offload.folder is not None else set()
    if config.max_memory is not None:
        return frozenset({*spread_keys(config.max_memory, context.machine)[0], *disk})
    if context.machine is not None and context.machine.devices:
        kept = {device for device in context.machine.devices if device.tier != Tier.DISK}
        return frozenset({*kept, *disk})
    return None


def nodes_of(context: Context) -> MachineProfile | None:
    """Return the machine of a config for several nodes; None where it is for one machine, or unreadable."""
    machine = context.machine
    return machine if machine is not None and machine.nodes else None


def is_offered(context: Context, device: Device) -> bool:
    """Return whether weights may lie on a device, or on one of that name of some node."""
    offered = offered_devices(context) or frozenset()
    return any(own in offered for own in called(device, context.machine))


def is_of_absent_node(context: Context, device: Device) -> bool:
    """Return whether a device is of a node that the machine does not name, or that no machine has."""
    return device.node is not None and (context.machine is None or device.node not in context.machine.nodes)


def devices_named(context: Context) -> Iterator[tuple[Device, DocumentPath]]:
    """Yield every device that the config names as a place for weights, with where it stands.

    In the map, `max_memory` and `forbid`.
    """
    config = context.document.config
    if config is None:
        return
    for key, target in config.device_map.items():
        if isinstance(target, Device):
            yield target, map_path(context, key)
    for device in config.max_memory or ():
        yield device, device_path(context, ("max_memory",), device)
    for device in config.forbid:
        yield device, device_path(context, ("forbid",), device)


def map_path(context: Context, key: str) -> DocumentPath:
    """Return where a key of the device map stands; the whole map where it is one word."""
    written = (context.document.data or {}).get("device_map")
    return ("device_map", key) if isinstance(written, dict) else ("device_map",)


def device_path(context: Context, section: tuple[str, ...], device: Device) -> DocumentPath:
    """Return where a device stands as a key of `section`, however it was spelt (`0`, `cuda:0`)."""
    node: object = context.document.data
    for part in section:
        node = node.get(part) if isinstance(node, dict) else None
    found = section
    for key in node if isinstance(node, dict) else ():
        try:
            named = parse_device(key)
        except ValueError:
            continue
        if named == device:
            return (*section, key)
        if named == device.on(None):  # a key without a node stands for the device of every node
            found = (*section, key)
    return found


def quoted(names: Sequence[str], most: int = 3) -> str:
    """Return a few names in quotes: `'a', 'b' and 7 more`."""
    few = ", ".join(f"'{name}'" for name in names[:most])
    return f"{few} and {len(names) - most:,} more" if len(names) > most else few


@lru_cache(maxsize=4)
def runs_by_key(context: Context) -> Mapping[str, list[PathInterval]]:
    """Return for each key of the map that decides a tensor the runs of tensors that it decides."""
    found: dict[str, list[PathInterval]] = defaultdict(list)
    assignment, expansion = assignment_of(context), context.expansion
    if assignment is not None and expansion is not None:
        for run in assignment.runs:
            if run.path is not None:
                found[expansion.anchors[run.path]].append(run)
    return found


_DEFAULT_HEADROOM = Percent(Decimal(15))


def machine_memory(context: Context, device: Device) -> int | None:
    """Return the memory of a device of the machine that the config names, in bytes.

    None where no machine says so.
    """
    found = known_device(context.machine, device)
    return found.memory if found is not None else None


def capacity(context: Context, device: Device) -> int | None:
    """Return what `max_memory` gives a device, else all of its memory, in bytes.

    None where nothing says, as for a disk that is a folder.
    """
    config = context.document.config
    memory = machine_memory(context, device)
    if config is None or config.max_memory is None:
        return None if device.tier == Tier.DISK else memory
    amount = config.max_memory.get(device, config.max_memory.get(device.on(None)))
    if isinstance(amount, Percent):
        return None if memory is None else amount.of(memory)
    return amount


def headroom(context: Context, device: Device) -> int:
    """Return what stays free on a device, in bytes.

    What the config says, else 15% of an accelerator whose budget is not given in bytes.
    """
    config = context.document.config
    total = capacity(context, device)
    if config is None or total is None:
        return 0
    said: Bytes | Percent | None = config.headroom.of(device) if config.headroom is not None else None
    if said is None and device.is_accelerator:
        in_bytes = config.max_memory is not None and not isinstance(
            config.max_memory.get(device, config.max_memory.get(device.on(None))), Percent
        )
        said = None if in_bytes else _DEFAULT_HEADROOM
    if said is None:
        return 0
    return said.of(total) if isinstance(said, Percent) else said
