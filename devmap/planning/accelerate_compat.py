"""Planning with plain dicts, in the words that Accelerate's users know.

The answers are devmap's: exact, complete, and never on a tier that `max_memory` does not offer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.model.placement_config import ModelSource, OffloadSettings, PlacementConfig
from devmap.config.values.device import Device, parse_device
from devmap.config.values.size import Bytes, Percent, parse_size
from devmap.config.values.strategy import Strategy
from devmap.config.values.words import shown
from devmap.errors import InventoryError, ResolutionError, UsageError
from devmap.inventory.dtypes import element_bits, run_dtype
from devmap.plan.fold import covers
from devmap.planning.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.model.placement_config import MachineDevice, MachineProfile
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["MapRequest", "balanced_memory", "class_names", "device_map_of", "sequential_plan"]


@dataclass(frozen=True)
class MapRequest:
    """What Accelerate's functions are asked with, under their names there."""

    inventory: Inventory
    max_memory: Mapping[int | str, int | str] | None = None
    """Bytes, or text such as `10GiB`, by device; never changed. `cpu` and `disk` are used only if they stand
    here."""
    no_split_module_classes: Sequence[str] | str | None = None
    """Names of classes that are kept whole; None for what the model's own code says."""
    dtype: object = None
    """The dtype that the model runs in; None for its own."""
    special_dtypes: Mapping[str, object] | None = None
    """Dtypes of single tensors by name."""
    offload_buffers: bool = False
    """Whether buffers follow their module to cpu or disk."""
    tied_parameters: Sequence[Sequence[str]] | None = None
    """Groups of names that share one tensor; None for what the model says."""
    machine: MachineProfile | None = None
    """The devices where `max_memory` is left out."""


def sequential_plan(request: MapRequest) -> Plan:
    """Return the plan that fills device 0, then 1, ... then cpu, then disk.

    Each within its budget to the byte.

    Raises:
        ResolutionError: no plan fits what is offered; with the shortfall in bytes.
        UsageError: a budget or a device that cannot be read.
    """
    return resolve(_config(request, Strategy.SEQUENTIAL), _described(request), machine=request.machine)


def device_map_of(plan: Plan, request: MapRequest, *, clean_result: bool = True) -> dict[str, int | str]:
    """Return a plan's map, its devices as the request spells them.

    Folded, or with `clean_result` False a key for each module that was placed.
    """
    names = {
        _device(key).plain: key
        for key in request.max_memory or ()
        if isinstance(key, str) and not key.isdecimal()
    }
    found = dict(plan.device_map) if clean_result else _per_atom(plan)
    return {path: names.get(value, value) for path, value in found.items()}


def balanced_memory(request: MapRequest, *, low_zero: bool = False) -> dict[int | str, int]:
    """Budgets in bytes with which `sequential_plan` gives the exact balanced split.

    Each accelerator gets what it carries in that split (weights, and room to stream where that is needed);
    `cpu` and `disk` keep theirs. `low_zero` keeps the first accelerator as light as the others allow. Where
    no plan fits, the budgets come back as they were: planning with them says what is missing.

    Raises:
        UsageError: a budget or a device that cannot be read.
        ResolutionError: neither `max_memory` nor a machine is known.
    """
    max_memory, machine = request.max_memory, request.machine
    inventory = _described(request)
    config = _config(request, Strategy.BALANCED_LOW_0 if low_zero else Strategy.BALANCED)
    if max_memory is None and machine is None:
        raise ResolutionError(
            "neither max_memory nor a machine is known", help="pass max_memory={0: '20GB', ...}"
        )
    if max_memory is not None:
        given = {_device(key): _bytes(key, amount) for key, amount in max_memory.items()}
        names = {_device(key): int(key) if str(key).isdecimal() else key for key in max_memory}
    else:
        given = {device: known.memory for device, known in _devices(machine).items()}
        names = {device: device.plain for device in given}
    try:
        plan = resolve(config, inventory, machine=machine)
    except ResolutionError:
        return {names[device]: int(nbytes) for device, nbytes in sorted(given.items())}
    carried = {
        use.device: use.weight_bytes
        + sum(charge.nbytes for charge in use.charges if charge.what != "headroom")
        for use in plan.devices
    }
    return {
        names[device]: carried[device] if device.is_accelerator else int(nbytes)
        for device, nbytes in sorted(given.items())
    }


def _devices(machine: MachineProfile | None) -> dict[Device, MachineDevice]:
    return (
        {}
        if machine is None
        else {device: known for device, known in machine.devices.items() if str(device) != "disk"}
    )


def _described(request: MapRequest) -> Inventory:
    inventory = request.inventory
    special = {name: _dtype(dtype) for name, dtype in (request.special_dtypes or {}).items()}
    unknown = [name for name in special if name not in inventory.tensors]
    if unknown:
        raise UsageError(f"special_dtypes: the model has no tensor {shown(unknown[0])}")
    if _is_applied_here(request):
        asked = None if request.dtype is None else _dtype(request.dtype)
        tensors = {
            name: tensor._replace(dtype=special.get(name) or run_dtype(tensor.dtype, asked, kind=tensor.kind))
            for name, tensor in inventory.tensors.items()
        }
        inventory = dataclasses.replace(inventory, tensors=tensors)
    if request.tied_parameters is not None:
        place = {name: at for at, name in enumerate(inventory.tensors)}
        groups = [
            sorted({name for name in group if name in place}, key=place.__getitem__)
            for group in request.tied_parameters
        ]
        ties = tuple(
            sorted((tuple(group) for group in groups if len(group) > 1), key=lambda group: place[group[0]])
        )
        inventory = dataclasses.replace(inventory, ties=ties)
    return inventory


def _is_applied_here(request: MapRequest) -> bool:
    """Return whether dtypes change the inventory rather than the config.

    Single tensors have dtypes that no run dtype changes; and no weight runs packed, so that no config has
    such a run dtype.
    """
    return bool(request.special_dtypes) or _dtype(request.dtype or "float32") in _NARROW.values()


_NARROW = {
    "CustomDtype.FP8": "float8_e4m3fn",
    "CustomDtype.INT4": "packed_int4",
    "CustomDtype.INT2": "packed_int2",
}
"""Accelerate's names of what a quantiser will make of the weights; each has bits of its own, and is no dtype
of torch."""


def class_names(asked: Sequence[str] | str | None) -> Sequence[str] | None:
    """Return what a caller gives for `no_split_module_classes`: names, or one name as text."""
    return [asked] if isinstance(asked, str) else asked


def _config(request: MapRequest, strategy: Strategy) -> PlacementConfig:
    whole = class_names(request.no_split_module_classes)
    return PlacementConfig(
        version=1,
        model=ModelSource(
            dtype=None if request.dtype is None or _is_applied_here(request) else _dtype(request.dtype)
        ),
        device_map={"": strategy},
        max_memory=None if request.max_memory is None else _budgets(request.max_memory),
        no_split_module_classes=None if whole is None else list(whole),
        offload=OffloadSettings(buffers=request.offload_buffers),
    )


def _dtype(dtype: object) -> str:
    """Return a dtype's name from torch's, a text, or Accelerate's `CustomDtype`.

    Raises:
        UsageError: when there is none of that name.
    """
    text = str(dtype).removeprefix("torch.")
    text = _NARROW.get(text, text)
    try:
        element_bits(text)
    except InventoryError as error:
        raise UsageError(f"{error.message}", help=error.help) from None
    return text


def _budgets(max_memory: Mapping[int | str, int | str]) -> dict[Device, Bytes | Percent]:
    return {_device(key): _bytes(key, amount) for key, amount in max_memory.items()}


def _device(key: int | str) -> Device:
    try:
        return parse_device(key)
    except ValueError as error:
        raise UsageError(f"max_memory: {error}") from None


def _bytes(key: int | str, amount: float | str) -> Bytes:
    """Return a budget; a float, which Accelerate's own arithmetic makes, is rounded down."""
    try:
        return parse_size(int(amount) if isinstance(amount, float) else amount)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"max_memory of {key}: {error}") from None


def _per_atom(plan: Plan) -> dict[str, int | str]:
    found = {}
    for placement in plan.placements:
        value = covers(plan.device_map, placement.path)
        found[placement.path] = placement.home.plain if value is None else value
    return found
