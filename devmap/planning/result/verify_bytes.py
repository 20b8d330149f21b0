"""The bytes of a plan added up again.

What every placement owns, what every device holds and keeps free, what streams fit their slots.
"""

from __future__ import annotations

import math
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, TypeVar

from devmap.config.model.placement_config import Parallel
from devmap.config.values.device import CPU, Device, Tier
from devmap.inventory.atoms import atoms
from devmap.inventory.dtypes import element_bits
from devmap.inventory.flat_index import value_at
from devmap.planning.problem.stage_charges import stage_charges
from devmap.planning.problem.workload import charges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.config.model.placement_config import PlacementConfig, Workload
    from devmap.inventory.flat_index import Interval
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["wrong_bytes", "wrong_charges", "wrong_executors"]

Value = TypeVar("Value")

_WIDE = {"float64", "float32", "float16", "bfloat16"}
"""What a run dtype changes; everything else keeps the checkpoint's."""


def wrong_bytes(
    plan: Plan, inventory: Inventory, homes: Sequence[Interval[int | str]], placed: Sequence[Interval[int]]
) -> Iterator[str]:
    """Weights added up again per placement and per device, each tied tensor once per device.

    Every total against its capacity.
    """
    up_to = _bytes_up_to(plan, inventory)
    owned = _added_up(placed, up_to, len(plan.placements))
    for at, size in _counted_before(inventory, homes, up_to):
        owned[value_at(placed, at) or 0] -= size
    for placement, nbytes in zip(plan.placements, owned, strict=True):
        if placement.nbytes != nbytes:
            yield f"'{placement.path}' is said to own {placement.nbytes:,} bytes and owns {nbytes:,}"
    held = _by_home(plan, owned)
    for use in plan.devices:
        expected = held.get(use.device, 0)
        if use.weight_bytes != expected:
            yield f"{use.device} is said to hold {use.weight_bytes:,} bytes of weights and holds {expected:,}"
        kept = sum(charge.nbytes for charge in use.charges)
        if use.capacity_bytes is not None and expected + kept > use.capacity_bytes:
            yield f"{use.device} is over its budget by {expected + kept - use.capacity_bytes:,} bytes"


def _added_up(placed: Sequence[Interval[int]], up_to: Sequence[int], count: int) -> list[int]:
    """Return the bytes of all tensors of each placement, by its number."""
    if len(placed) == count and [number for _, _, number in placed] == list(range(count)):
        return [up_to[end] - up_to[start] for start, end, _ in placed]
    found = [0] * count
    for start, end, number in placed:
        if number is not None:
            found[number] += up_to[end] - up_to[start]
    return found


def _counted_before(
    inventory: Inventory, places: Sequence[Interval[Value]], up_to: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield the tied tensors that are in the same place as another of their group before them.

    Number and bytes.
    """
    number = inventory.flat_index.number
    for group in inventory.ties:
        seen = set()
        for at in sorted([number[name] for name in group]):
            place = value_at(places, at)
            if place in seen:
                yield at, up_to[at + 1] - up_to[at]
            seen.add(place)


def _by_home(plan: Plan, owned: Sequence[int]) -> dict[Device, int]:
    """Return what each device holds, without the buffers of streamed placements, which stay elsewhere."""
    held: dict[Device, int] = {}
    start = 0
    for device, group in groupby([placement.home for placement in plan.placements]):
        end = start + len(list(group))
        away = sum([placement.resident_buffer_bytes for placement in plan.placements[start:end]])
        held[device] = held.get(device, 0) + sum(owned[start:end]) - away
        start = end
    return held


def _bytes_up_to(plan: Plan, inventory: Inventory, *, moved_only: bool = False) -> Sequence[int]:
    """Return the bytes at the run dtype, from shapes, of all tensors before each number of the line.

    And of all of them last.

    `moved_only` leaves out the buffers that a stream does not move. Worked out once for a model.
    """
    without_buffers = moved_only and not plan.offload_buffers

    def added_up() -> Sequence[int]:
        signatures, signature_of = inventory.signatures
        sizes = []
        for shape, dtype, kind, _ in signatures:
            running = (
                plan.dtype if plan.dtype is not None and kind == "parameter" and dtype in _WIDE else dtype
            )
            sizes.append(
                0
                if without_buffers and kind == "buffer"
                else -(-math.prod(shape) * element_bits(running) // 8)
            )
        return [0, *accumulate(map(sizes.__getitem__, signature_of))]

    return inventory.once(("bytes up to, for the proof", plan.dtype, without_buffers), added_up)


def wrong_charges(plan: Plan, inventory: Inventory, config: PlacementConfig) -> Iterator[str]:
    """Capacities, buffers that stay and the workload's charges.

    Each attributed again to the devices of the plan.

    What the workload keeps for one module is taken as `workload` says; the formulas are not derived a second
    time.
    """
    expected: dict[tuple[Device, str], int] = {}
    for placement in plan.placements:
        if placement.resident_buffer_bytes:
            key = (placement.executes_on, "buffers")
            expected[key] = expected.get(key, 0) + placement.resident_buffer_bytes
    if config.workload is not None:
        yield from _moved_while_trained(plan, inventory, config.workload, expected, config.parallel)
    told = {use.device: use for use in plan.devices}
    for (device, what), nbytes in expected.items():
        use = told.get(device)
        charged = (
            sum(charge.nbytes for charge in use.charges if charge.what == what) if use is not None else nbytes
        )
        if charged != nbytes:
            yield f"{device} is charged {charged:,} bytes for {what}, and the plan needs {nbytes:,}"
    for device, amount in (config.max_memory or {}).items():
        if isinstance(amount, int) and device in told and told[device].capacity_bytes != amount:
            yield (
                f"{device} is said to have {told[device].capacity_bytes} "
                f"bytes, and max_memory gives {amount:,}"
            )


def _moved_while_trained(
    plan: Plan,
    inventory: Inventory,
    asked: Workload,
    expected: dict[tuple[Device, str], int],
    parallel: Parallel | None,
) -> Iterator[str]:
    """Trained weights that a plan streams; adds to `expected` what the workload keeps, by device and kind."""
    whole = atoms(inventory, no_split_module_classes=plan.no_split_module_classes, dtype=plan.dtype)
    if plan.pipeline is None:
        workload = charges(asked, inventory, whole, dtype=plan.dtype)
    else:
        stages = plan.pipeline.stages
        workload = stage_charges(
            asked, inventory, whole, parallel or Parallel(), stages=len(stages), dtype=plan.dtype
        ).settled([stage.numbers for stage in stages])
    by_path = {placement.path: placement for placement in plan.placements}
    for kind in workload.by_kind:
        for at, nbytes in kind.by_atom.items():
            placement = by_path[whole[at].path]
            key = (placement.home if kind.follows_home else placement.executes_on, kind.what)
            expected[key] = expected.get(key, 0) + nbytes
    if workload.activation_bytes:
        for device in {placement.executes_on for placement in plan.placements}:
            expected[device, "activations"] = (
                expected.get((device, "activations"), 0) + workload.activation_bytes
            )
    for at in sorted(workload.trained):
        placement = by_path[whole[at].path]
        if placement.is_streamed or placement.home.tier == Tier.DISK:
            yield f"'{placement.path}' is trained and streamed from {placement.home}"


def wrong_executors(plan: Plan, inventory: Inventory, placed: Sequence[Interval[int]]) -> Iterator[str]:
    """Executing devices, and that every device with streamed atoms keeps a slot for the largest."""
    nodes = plan.pipeline.nodes if plan.pipeline is not None else (None,)
    able = {use.device for use in plan.devices} | {CPU.on(node) for node in nodes}
    streamed: list[int] = []
    nearest: Device | None = None
    before: tuple[Device, Device] | None = None
    streams = False
    for number, (path, home, execution_devices, _, _) in enumerate(plan.placements):
        if before is not None and home is before[0] and execution_devices is before[1]:
            if streams:
                streamed.append(number)
            continue  # nothing to be said that was not said of the one before it
        before, streams = (
            (home, execution_devices),
            execution_devices in able and execution_devices != home and execution_devices.tier != Tier.DISK,
        )
        nearest = home if home.is_accelerator else nearest
        if execution_devices not in able or execution_devices.tier == Tier.DISK:
            yield f"'{path}' is executed on {execution_devices}"
        elif streams:
            streamed.append(number)
            if home.is_accelerator:
                yield f"'{path}' lives on {home} and is executed on {execution_devices}"
            elif (
                plan.pipeline is None  # a stage streams to its own accelerator, whatever lives on it
                and execution_devices.is_accelerator
                and nearest not in {None, execution_devices}
            ):
                yield (
                    f"'{path}' is streamed to {execution_devices}; the nearest "
                    f"resident module before it is on {nearest}"
                )
    for device, nbytes in sorted(_largest_slots(plan, inventory, placed, streamed).items()):
        use = plan.use_of(device)
        slots = (
            sum(charge.nbytes for charge in use.charges if charge.what == "slots")
            if use is not None
            else nbytes
        )
        if slots < nbytes:
            yield f"{device} keeps {slots:,} bytes of slots for a module of {nbytes:,}"


def _largest_slots(
    plan: Plan, inventory: Inventory, placed: Sequence[Interval[int]], streamed: Sequence[int]
) -> dict[Device, int]:
    """Return the most bytes that one streamed module brings, by executing device.

    All its weights, once each, without buffers that stay.
    """
    if not streamed:
        return {}
    up_to = _bytes_up_to(plan, inventory, moved_only=True)
    brought = _added_up(placed, up_to, len(plan.placements))
    for at, size in _counted_before(inventory, placed, up_to):
        brought[value_at(placed, at) or 0] -= size
    found: dict[Device, int] = {}
    for device, members in groupby(streamed, key=lambda number: plan.placements[number].executes_on):
        found[device] = max([found.get(device, 0), *(brought[number] for number in members)])
    # What a CPU executes from disk runs from mapped pages.
    return {device: nbytes for device, nbytes in found.items() if device.is_accelerator}
