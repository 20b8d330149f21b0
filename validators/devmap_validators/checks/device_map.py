"""A concrete device map against a model: everything that is wrong with it, at once.

The checks are those of `accelerate.utils.check_device_map` and what its users found missing there: every
tensor has a device (buffers too), every key names something, no block and no tie is torn, every device exists
and holds what it is given. Linear in the map plus the model's tensors.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from devmap.config.values.device import Device, device_name, parse_device
from devmap.config.values.strategy import Strategy
from devmap.config.values.words import shown
from devmap.findings.model import Finding, Severity
from devmap.inventory.stored_names import runtime_path
from devmap_validators.checks.assignment import Assignment, assign, bytes_on_devices, split_blocks, split_ties
from devmap_validators.checks.suggestion import explain_miss, near_path
from devmap_validators.checks.wording import (
    counted,
    devices_in_words,
    fold,
    fold_paths,
    over_budget,
    split_block,
    split_tie,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from devmap.inventory.model import Inventory
    from devmap_validators.checks.assignment import Assignment

__all__ = ["device_map_findings"]

_MOST_FINDINGS = 20
"""Of one kind: a map with one wrong prefix has the same fault in every key."""


def device_map_findings(
    inventory: Inventory,
    device_map: Mapping[str, object],
    *,
    no_split_module_classes: Collection[str] | None = None,
    max_memory: Mapping[Device, int] | None = None,
    dtype: str | None = None,
    offered: Collection[Device] | None = None,
) -> list[Finding]:
    """Everything that is wrong with a map from module and tensor paths to devices.

    The longest key wins; `""` is the whole model. `max_memory` holds budgets in bytes (weights at the run
    dtype `dtype`, a tied tensor once per device) and, with `offered`, the devices that there are; without
    either any device is good. `no_split_module_classes` defaults to the inventory's own.
    """
    devices, findings = _devices_of(device_map)
    findings += _unmatched(inventory, devices)
    assignment = assign(inventory, devices)
    findings += _uncovered(inventory, assignment.uncovered, dtype)
    classes = (
        inventory.no_split_module_classes if no_split_module_classes is None else no_split_module_classes
    )
    findings += _straddling(assignment, classes)
    findings += [
        _error("DM204", split_tie(inventory, placed, dtype), help="give all of them the same device")
        for placed in split_ties(assignment)
    ]
    findings += _mixed_backends(devices)
    findings += _not_offered(devices, max_memory, offered)
    findings += _over_budget(assignment, max_memory or {}, dtype)
    return findings


_NAMES = {
    "DM105": "invalid-device",
    "DM108": "invalid-map-key",
    "DM201": "unmatched-key",
    "DM202": "uncovered-tensors",
    "DM203": "straddling-class",
    "DM204": "split-ties",
    "DM301": "device-without-budget",
    "DM303": "mixed-backends",
    "DM304": "tier-not-offered",
    "DM402": "over-budget-map",
}


def _error(
    code: str,
    message: str,
    *,
    help: str = "",  # noqa: A002
    label: str = "",
    severity: Severity = Severity.ERROR,
) -> Finding:
    return Finding(code, _NAMES[code], severity, message, help=help, label=label)


def _devices_of(device_map: Mapping[Any, object]) -> tuple[dict[str, object], list[Finding]]:
    """Return the map with its values parsed (None for what is no device).

    And what is wrong with keys and values.
    """
    parsed: dict[tuple[type, str], Device | None] = {}
    wrong: dict[str, list[str]] = defaultdict(list)
    devices: dict[str, object] = {}
    findings: list[Finding] = []
    for key, value in device_map.items():
        if not isinstance(key, str):
            message = f"the key {shown(key)} is not a valid module path"
            findings.append(
                _error("DM108", message, help="keys are paths such as 'model.layers.0', values are devices")
            )
            continue
        known = (type(value), str(value))
        if known not in parsed:
            try:
                parsed[known] = parse_device(value)
            except ValueError:
                parsed[known] = None
        devices[key] = parsed[known]
        if parsed[known] is None:
            wrong[shown(value)].append(key)
    for value, keys in wrong.items():
        others = f" and {counted(len(keys) - 1, 'other key')}" if len(keys) > 1 else ""
        hint = "values are an index such as 0, 'cpu', 'disk' or a torch device such as 'cuda:0'"
        if value.strip("'") in set(Strategy):
            hint = "a concrete map has a device for each key; resolve the strategy first"
        findings.append(
            _error("DM105", f"{value} is not a valid device (at {shown(keys[0])}{others})", help=hint)
        )
    return devices, findings[:_MOST_FINDINGS]


def _unmatched(inventory: Inventory, device_map: Mapping[str, object]) -> list[Finding]:
    keys = [key for key in device_map if key not in inventory.modules and key not in inventory.tensors]
    found = [_unmatched_key(inventory, key) for key in keys[:_MOST_FINDINGS]]
    return [*_capped(found, keys, "DM201", "key", "name no part of this model")]


def _unmatched_key(inventory: Inventory, key: str) -> Finding:
    near = runtime_path(inventory, key) or near_path(key, inventory.index)
    message = f"{shown(key)} is not a module or tensor of this model"
    if near is not None:
        return _error("DM201", message, label=f"did you mean '{near}'?", help=f"did you mean '{near}'?")
    parent, _, name = key.rpartition(".")
    if parent in inventory.modules and name.isidentifier() and inventory.children[parent]:
        # Maps that others wrote name modules without weights (dropouts), which an inventory does not hold.
        message = f"{shown(key)} holds no weights, or is not a module of this model"
        return _error("DM201", message, help=explain_miss(key, inventory.index), severity=Severity.WARNING)
    return _error("DM201", message, help=explain_miss(key, inventory.index))


def _uncovered(inventory: Inventory, names: Sequence[str], dtype: str | None) -> list[Finding]:
    groups = fold(inventory, names, dtype=dtype) if names else ()
    found = [
        _error("DM202", f"no key covers {group}", help='add a key for them, or "" for the rest')
        for group in groups[:_MOST_FINDINGS]
    ]
    return [*_capped(found, groups, "DM202", "group", "of tensors have no device")]


def _straddling(assignment: Assignment, classes: Collection[str]) -> list[Finding]:
    """Return one finding for all blocks of a class that lie on the same devices."""
    alike: dict[tuple[str, tuple[Device, ...]], list[str]] = defaultdict(list)
    first: dict[tuple[str, tuple[Device, ...]], str] = {}
    for block in split_blocks(assignment, classes):
        kind = (block.class_name, tuple(sorted(device for device, _ in block.parts)))
        alike[kind].append(block.path)
        first.setdefault(kind, split_block(block))
    found = []
    for kind, paths in alike.items():
        others = [
            path
            for run in fold_paths(paths)
            for path in ([run[0]] if len(run) == 1 else [f"{run[0]} to {run[-1]}"])
        ]
        more = (
            f"; so are {counted(len(paths) - 1, 'other')} of {', '.join(others[:6])}"
            if len(paths) > 1
            else ""
        )
        found.append(_error("DM203", first[kind] + more, help="give each block one device"))
    return found


def _mixed_backends(devices: Mapping[str, object]) -> Iterator[Finding]:
    backends = sorted(
        {device.backend for device in devices.values() if isinstance(device, Device) and device.backend}
    )
    if len(backends) > 1:
        yield _error(
            "DM303",
            f"the map mixes {' and '.join(backends)} devices",
            help="one process runs on one kind of accelerator",
        )


def _not_offered(
    devices: Mapping[str, object], max_memory: Mapping[Device, int] | None, offered: Collection[Device] | None
) -> Iterator[Finding]:
    if max_memory is None and offered is None:
        return
    known = {*(max_memory or ()), *(offered or ())}
    missing: dict[Device, list[str]] = defaultdict(list)
    for key, device in devices.items():
        if isinstance(device, Device) and device not in known:
            missing[device].append(key)
    for device in sorted(missing):
        keys = missing[device]
        others = f" and {counted(len(keys) - 1, 'other key')}" if len(keys) > 1 else ""
        code = "DM301" if device.is_accelerator else "DM304"
        message = f"{shown(keys[0])}{others} asks for {device_name(device)}, which is not offered"
        yield _error(
            code, message, help=f"offered: {devices_in_words(known)}; add it to max_memory or choose another"
        )


def _over_budget(
    assignment: Assignment, max_memory: Mapping[Device, int], dtype: str | None
) -> Iterator[Finding]:
    used = bytes_on_devices(assignment, dtype) if max_memory else {}
    for device, budget in sorted(max_memory.items()):
        if used.get(device, 0) > budget:
            yield _error(
                "DM402",
                over_budget(device, used[device], budget),
                help="move modules away or raise the budget",
            )


def _capped(
    found: Sequence[Finding], all_of_them: Sequence[object], code: str, noun: str, what: str
) -> Iterator[Finding]:
    yield from found
    if len(all_of_them) > len(found):
        yield _error(code, f"{counted(len(all_of_them) - len(found), f'more {noun}')} {what}")
