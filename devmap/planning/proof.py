"""A plan proven before it is returned, from the plan, the inventory and the config alone.

Nothing here shares code with the algorithms: homes are read from the folded map, sizes are worked out again from shapes, wishes from the
keys of the config. `proof_bytes` adds up every device again. Both are linear in modules plus tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from devmap.config.device import DISK, Device
from devmap.errors import ResolutionError
from devmap.inventory.patterns import PathIndex, expand_keys
from devmap.planning.proof_bytes import run_sizes, wrong_bytes, wrong_charges, wrong_executors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from devmap.config.model import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["faults_of", "prove"]

Mark = TypeVar("Mark")


def prove(plan: Plan, inventory: Inventory, config: PlacementConfig) -> None:
    """Check a plan against every promise.

    Raises:
        ResolutionError: when one does not hold, which is a defect of devmap.
    """
    faults = list(faults_of(plan, inventory, config))
    if faults:
        raise ResolutionError(
            f"the plan broke {len(faults)} of its own promises; first: {faults[0]}",
            help="this is a defect of devmap: please report it with the config and the manifest",
        )


def faults_of(plan: Plan, inventory: Inventory, config: PlacementConfig) -> Iterator[str]:
    """Every promise that a plan breaks, in a sentence each."""
    read = _read(plan, inventory)
    if None in read.homes or -1 in read.placed:
        missing = zip(inventory.tensors, read.homes, read.placed, strict=True)
        yield from (f"nothing places '{name}'" for name, home, placed in missing if home is None or placed < 0)
        return
    yield from _wrong_names(plan, inventory)
    yield from _two_stories(plan, inventory, read)
    yield from _wrong_tiers(plan, config)
    yield from _straddling(plan, inventory, read.homes)
    yield from _broken_wishes(config, inventory, read.homes)
    yield from _parted_ties(plan, inventory, dict(zip(inventory.tensors, read.homes, strict=True)) if inventory.ties else {})
    sizes = run_sizes(plan, inventory)
    yield from wrong_bytes(plan, inventory, sizes, read.homes, read.placed)
    yield from wrong_charges(plan, inventory, config)
    yield from wrong_executors(plan, inventory, sizes, read.placed)


@dataclass(frozen=True)
class _Reading:
    """What a plan says of each tensor, in the model's order."""

    homes: Sequence[int | str | None]
    """The value of the longest key of the map."""
    placed: Sequence[int]
    """The number of the placement that it is, or that is nearest above it; -1 where none is."""


def _read(plan: Plan, inventory: Inventory) -> _Reading:
    """One walk down the tree: what is not said of a module is said of the one above it."""
    device_map, children = plan.device_map, inventory.children
    numbers = {placement.path: number for number, placement in enumerate(plan.placements)}
    homes: dict[str, int | str | None] = {"": device_map.get("")}
    placed: dict[str, int] = {"": numbers.get("", -1)}
    for path in inventory.modules:
        below = children[path]
        if below:
            home, number = homes[path], placed[path]
            for child in below:
                homes[child] = device_map.get(child, home)
                placed[child] = numbers.get(child, number)
    of_tensors: list[int | str | None] = []
    placed_tensors: list[int] = []
    for name in inventory.tensors:
        above = name.rpartition(".")[0]
        of_tensors.append(device_map.get(name, homes[above]))
        placed_tensors.append(numbers.get(name, placed[above]))
    return _Reading(of_tensors, placed_tensors)


def _wrong_names(plan: Plan, inventory: Inventory) -> Iterator[str]:
    for key in plan.device_map:
        if key not in inventory.modules and key not in inventory.tensors:
            yield f"the key '{key}' names nothing"


def _two_stories(plan: Plan, inventory: Inventory, read: _Reading) -> Iterator[str]:
    """Placements that say another home than the map."""
    homes: list[int | str] = []
    for _, group in groupby([placement.home for placement in plan.placements]):
        members = list(group)
        homes += [members[0].plain] * len(members)
    for name, home, number in zip(inventory.tensors, read.homes, read.placed, strict=True):
        if homes[number] != home:
            yield f"the map sends '{name}' to {home} and its placement to {homes[number]}"


def _wrong_tiers(plan: Plan, config: PlacementConfig) -> Iterator[str]:
    offered = {use.device for use in plan.devices}
    if config.max_memory is not None:
        offered = set(config.max_memory) | ({DISK} if config.offload.folder is not None else set())
    for device in {device for device, _ in groupby([placement.home for placement in plan.placements])}:
        if device not in offered:
            yield f"{device} holds weights and is not offered"


def _straddling(plan: Plan, inventory: Inventory, homes: Sequence[int | str | None]) -> Iterator[str]:
    """Modules of a whole class whose tensors lie on several devices, the outermost of each."""
    whole = set(plan.no_split_module_classes)
    if whole.isdisjoint(inventory.modules.values()):
        return
    inside: dict[str, str | None] = {}
    for path, class_name in inventory.modules.items():
        above = inside[path.rpartition(".")[0]] if path else None
        inside[path] = path if above is None and class_name in whole else above
    found: dict[str, set[int | str | None]] = {}
    for name, home in zip(inventory.tensors, homes, strict=True):
        block = inside[name.rpartition(".")[0]]
        if block is not None:
            found.setdefault(block, set()).add(home)
    for path, devices in found.items():
        if len(devices) > 1:
            yield f"'{path}' ({inventory.modules[path]}) straddles {', '.join(sorted(map(str, devices)))}"


def _broken_wishes(config: PlacementConfig, inventory: Inventory, homes: Sequence[int | str | None]) -> Iterator[str]:
    """Pins, `forbid` and `same_device`, read again from their keys and carried down to every tensor below them."""
    pinned = any(isinstance(target, Device) for target in config.device_map.values())
    if not pinned and not config.forbid and not config.same_device:
        return
    index = inventory.index
    anchors = expand_keys(config.device_map, index).anchors if pinned else {}
    targets = _carried_down(inventory, {path: [config.device_map[key]] for path, key in anchors.items()})
    kept_off = _carried_down(inventory, _marked(index, config.forbid.items()))
    groups = _carried_down(inventory, _marked(index, enumerate(config.same_device)))
    met: dict[int, int | str | None] = {}
    for name, home, target, off, joined in zip(inventory.tensors, homes, targets, kept_off, groups, strict=True):
        if target and isinstance(target[-1], Device) and target[-1].plain != home:
            yield f"'{name}' is pinned to {target[-1]} and lies on {home}"
        if any(device.plain == home for device in off):
            yield f"'{name}' lies on {home}, which 'forbid' keeps it off"
        for number in joined:
            if met.setdefault(number, home) != home:
                yield f"'{name}' lies on {home}, apart from the rest of same_device[{number}]"


def _marked(index: PathIndex, wishes: Iterable[tuple[Mark, Iterable[str]]]) -> dict[str, list[Mark]]:
    """The marks of each path that the keys of a wish name."""
    found: dict[str, list[Mark]] = {}
    for mark, keys in wishes:
        for path in [path for key in keys for path in index.match(key)]:
            found.setdefault(path, []).append(mark)
    return found


def _carried_down(inventory: Inventory, marks: Mapping[str, Sequence[Mark]]) -> list[tuple[Mark, ...]]:
    """For each tensor the marks on it and above it, the nearest last."""
    nothing: tuple[Mark, ...] = ()
    if not marks:
        return [nothing] * len(inventory.tensors)
    carried: dict[str, tuple[Mark, ...]] = {}
    for path in inventory.modules:
        above = carried[path.rpartition(".")[0]] if path else nothing
        carried[path] = (*above, *marks[path]) if path in marks else above
    return [
        (*carried[name.rpartition(".")[0]], *marks[name]) if name in marks else carried[name.rpartition(".")[0]]
        for name in inventory.tensors
    ]


def _parted_ties(plan: Plan, inventory: Inventory, homes: Mapping[str, int | str | None]) -> Iterator[str]:
    """Ties over several devices, unless a reason names the copy that each further device takes; `wrong_bytes` sees that it is paid for."""
    for group in inventory.ties:
        told = {homes[group[0]]}
        for name in group[1:]:
            if homes[name] not in told:
                told.add(homes[name])
                if not any(reason.startswith(f"'{name}' is tied to '{group[0]}' and pinned apart") for reason in plan.reasons):
                    yield f"the tie {' = '.join(group)} is on several devices, and no reason names the copy of '{name}'"
