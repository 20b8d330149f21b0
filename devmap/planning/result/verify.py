"""A plan proven before it is returned, from the plan, the inventory and the config alone.

Nothing here shares code with the algorithms, but for the line that a model's tensors stand in: homes are
read from the folded map, sizes are worked out again from shapes, constraints from the keys of the config.
`verify_bytes` adds up every device again. What a plan says of many tensors is read by runs of the line, so
that proving costs what the plan does: n log n in keys and placements.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from devmap.config.values.device import DISK, Device, Tier
from devmap.errors import ResolutionError
from devmap.inventory.atoms import torn_blocks
from devmap.inventory.flat_index import joined, over, value_at
from devmap.inventory.patterns import expand_keys
from devmap.planning.result.verify_bytes import wrong_bytes, wrong_charges, wrong_executors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.flat_index import Interval
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["faults_of", "prove"]


def prove(plan: Plan, inventory: Inventory, config: PlacementConfig) -> None:
    """Check a plan against every promise.

    Raises:
        ResolutionError: when one does not hold, which is a defect of devmap.
    """
    faults = list(faults_of(plan, inventory, config))
    if faults:
        raise ResolutionError(
            f"internal error: the computed plan failed verification "
            f"({len(faults)} check{'' if len(faults) == 1 else 's'}); first: {faults[0]}",
            help="this is a bug in devmap: please report it with the config and the manifest",
        )


def faults_of(plan: Plan, inventory: Inventory, config: PlacementConfig) -> Iterator[str]:
    """Yield every promise that a plan breaks, in a sentence each."""
    homes, placed = read_plan(plan, inventory)
    missing = sorted(
        {at for start, end, said in (*homes, *placed) if said is None for at in range(start, end)}
    )
    if missing:
        yield from (f"nothing places '{inventory.flat_index.tensors[at]}'" for at in missing)
        return
    yield from _wrong_names(plan, inventory)
    yield from _contradicting_homes(plan, inventory, homes, placed)
    yield from _wrong_tiers(plan, config)
    yield from _straddling(plan, inventory, homes)
    yield from _violated_pins(config, inventory, homes)
    yield from _broken_constraints(config, inventory, homes)
    yield from _parted_ties(plan, inventory, homes)
    yield from wrong_bytes(plan, inventory, homes, placed)
    yield from wrong_charges(plan, inventory, config)
    yield from wrong_executors(plan, inventory, placed)
    yield from _wrong_stages(plan)


def read_plan(
    plan: Plan, inventory: Inventory
) -> tuple[Sequence[Interval[int | str]], Sequence[Interval[int]]]:
    """Return what a plan says of the line of tensors.

    Homes by the longest key of its map, and the numbers of placements.
    """
    line = inventory.flat_index
    homes = list(
        joined(
            (start, end, None if key is None else plan.device_map[key])
            for start, end, key in line.runs(plan.device_map)
        )
    )
    placed = _one_after_another(plan, inventory)
    if placed is None:
        numbers = {placement.path: number for number, placement in enumerate(plan.placements)}
        placed = [
            (start, end, None if path is None else numbers[path]) for start, end, path in line.runs(numbers)
        ]
    return homes, placed


def _one_after_another(plan: Plan, inventory: Inventory) -> list[Interval[int]] | None:
    """Return the stretches of placements that cover the line in its order, as those of a sound plan do.

    None where they do not.
    """
    line = inventory.flat_index
    first, after, place, number = line.first, line.after, line.place, line.number
    borders = [0]
    for placement in plan.placements:
        path = placement[0]
        at = place.get(path)
        start, end = (
            (first[at], first[after[at]])
            if at is not None
            else (number.get(path, -1), number.get(path, -1) + 1)
        )
        if start != borders[-1]:
            return None
        borders.append(end)
    if borders[-1] != len(line.tensors):
        return None
    return list(zip(borders, borders[1:], range(len(plan.placements)), strict=False))


def _wrong_names(plan: Plan, inventory: Inventory) -> Iterator[str]:
    for key in plan.device_map:
        if key not in inventory.modules and key not in inventory.tensors:
            yield f"the key '{key}' matches nothing"


def _contradicting_homes(
    plan: Plan, inventory: Inventory, homes: Sequence[Interval[int | str]], placed: Sequence[Interval[int]]
) -> Iterator[str]:
    """Placements that say another home than the map."""
    said = [plan.placements[number].home for _, _, number in placed if number is not None]
    at = 0
    for device, members in groupby(said):
        start, at = at, at + len(list(members))
        for low, high, home in over(homes, placed[start][0], placed[at - 1][1]):
            if home != device.plain:
                for number in range(low, high):
                    yield (
                        f"the map sends '{inventory.flat_index.tensors[number]}' to {home} "
                        f"and its placement to {device.plain}"
                    )


def _wrong_tiers(plan: Plan, config: PlacementConfig) -> Iterator[str]:
    offered = {use.device for use in plan.devices}
    if config.max_memory is not None:
        offered = set(config.max_memory) | ({DISK} if config.offload.folder is not None else set())
    for device in {device for device, _ in groupby([placement.home for placement in plan.placements])}:
        if device not in offered:
            yield f"{device} holds weights and is not offered"


def _straddling(plan: Plan, inventory: Inventory, homes: Sequence[Interval[int | str]]) -> Iterator[str]:
    """Modules of a whole class whose tensors lie on several devices, the outermost of each.

    Those with a border of the map inside.
    """
    borders = [border for border, _, _ in homes[1:]]
    for start, end, path in torn_blocks(inventory, frozenset(plan.no_split_module_classes), borders):
        devices = {str(home) for _, _, home in over(homes, start, end)}
        if len(devices) > 1:
            yield f"'{path}' ({inventory.modules[path]}) straddles {', '.join(sorted(devices))}"


def _violated_pins(
    config: PlacementConfig, inventory: Inventory, homes: Sequence[Interval[int | str]]
) -> Iterator[str]:
    """Pins, read again from the keys of the map and carried down to every tensor below them."""
    if not any(isinstance(target, Device) for target in config.device_map.values()):
        return
    anchors = expand_keys(config.device_map, inventory.index).anchors
    runs = inventory.flat_index.runs(anchors)
    for start, end, target in joined(
        (start, end, None if path is None else config.device_map[anchors[path]]) for start, end, path in runs
    ):
        if isinstance(target, Device):
            for low, high, home in over(homes, start, end):
                if home != target.plain and not _is_of_some_node(home, target):
                    names = inventory.flat_index.tensors[low:high]
                    yield from (f"'{name}' is pinned to {target} and lies on {home}" for name in names)


def _is_of_some_node(home: object, target: Device) -> bool:
    """Return whether a home is the tier of that name on one of several nodes, and the pin names no node."""
    return target.node is None and isinstance(home, str) and home.endswith(f"/{target.plain}")


def _wrong_stages(plan: Plan) -> Iterator[str]:
    """Yield what is wrong with the stages of a plan for several nodes.

    Each placement is in one of them, runs on its accelerator or its node's CPU, and lives on its node.
    """
    if plan.pipeline is None:
        return
    devices = [stage.device for stage in plan.pipeline.stages]
    if len(set(devices)) != len(devices):
        yield "two stages share an accelerator"
    spans = sorted((span, stage) for stage in plan.pipeline.stages for span in stage.spans)
    reached = 0
    for (start, end), stage in spans:
        if start != reached or end <= start:
            yield f"the stages cover placement {reached} other than once"
            return
        reached = end
        for placement in plan.placements[start:end]:
            own = placement.executes_on == stage.device or (
                placement.executes_on.tier == Tier.CPU and placement.executes_on.node == stage.node
            )
            if not own or placement.home.node != stage.node:
                yield f"'{placement.path}' of stage {stage.index} leaves {stage.device} and its node"
            elif placement.home.is_accelerator and placement.home != stage.device:
                yield f"'{placement.path}' of stage {stage.index} lives on {placement.home}"
    if reached != len(plan.placements):
        yield f"{len(plan.placements) - reached} placements are in no stage"


def _broken_constraints(
    config: PlacementConfig, inventory: Inventory, homes: Sequence[Interval[int | str]]
) -> Iterator[str]:
    """`forbid` and `same_device`, read again from their keys and carried down to every tensor below them."""
    names = inventory.flat_index.tensors
    for device, keys in config.forbid.items():
        for at, home in _homes_below(inventory, keys, homes):
            if home == device.plain:
                yield f"'{names[at]}' lies on {home}, which 'forbid' keeps it off"
    for number, keys in enumerate(config.same_device):
        below = list(_homes_below(inventory, keys, homes))
        yield from (
            f"'{names[at]}' lies on {home}, apart from the rest of same_device[{number}]"
            for at, home in below
            if home != below[0][1]
        )


def _homes_below(
    inventory: Inventory, keys: Iterable[str], homes: Sequence[Interval[int | str]]
) -> Iterator[tuple[int, int | str | None]]:
    """Yield the tensors at and below what the keys of a constraint name, in order, by number.

    With their homes.
    """
    named = {path for key in keys for path in inventory.index.match(key)}
    for start, end, path in inventory.flat_index.runs(named):
        if path is not None:
            parts: Iterator[Interval[int | str]] = over(homes, start, end)
            yield from ((at, home) for low, high, home in parts for at in range(low, high))


def _parted_ties(plan: Plan, inventory: Inventory, homes: Sequence[Interval[int | str]]) -> Iterator[str]:
    """Yield the ties over several devices of which the plan does not list the copy on a further device.

    `wrong_bytes` sees that the copy is paid for.
    """
    if len(homes) < 2:
        return
    number = inventory.flat_index.number
    listed = {(copy.tensor, copy.original, copy.device.plain) for copy in plan.tied_copies}
    for group in inventory.ties:
        home_of = {name: value_at(homes, number[name]) for name in group}
        seen = {home_of[group[0]]}
        for name in group[1:]:
            if home_of[name] not in seen:
                seen.add(home_of[name])
                if (name, group[0], home_of[name]) not in listed:
                    yield (
                        f"the tie {' = '.join(group)} is on several devices, and the plan lists no copy of "
                        f"'{name}' on {home_of[name]}"
                    )
