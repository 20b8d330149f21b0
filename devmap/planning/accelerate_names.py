"""Planning with plain dicts, under the names and signatures that Accelerate's users know.

The answers are devmap's: exact, complete, and never on a tier that `max_memory` does not offer.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from devmap.config.device import Device, parse_device
from devmap.config.model import ModelSource, OffloadSettings, PlacementConfig
from devmap.config.size import Bytes, Percent, parse_size
from devmap.config.strategy import Strategy
from devmap.errors import ResolutionError, UsageError
from devmap.inventory.model import Inventory
from devmap.plan.fold import covers
from devmap.planning.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from devmap.config.model import MachineDevice, MachineProfile
    from devmap.plan.model import Plan

__all__ = ["get_balanced_memory", "infer_auto_device_map"]

_log = logging.getLogger(__name__)


def infer_auto_device_map(  # noqa: PLR0917 - Accelerate's signature
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    verbose: bool = False,
    clean_result: bool = True,
    offload_buffers: bool = False,
    fallback_allocation: bool = False,  # noqa: ARG001 - Accelerate's signature; a huge first module is always stepped round here
    tied_parameters: Sequence[Sequence[str]] | None = None,
    *,
    machine: MachineProfile | None = None,
) -> dict[str, int | str]:
    """A device map that fills device 0, then 1, ... then cpu, then disk, each within its budget to the byte.

    Args:
        model: an `nn.Module` (on any device, or meta), or an inventory.
        max_memory: bytes, or text such as `10GiB`, by device; never changed. `cpu` and `disk` are used only if they stand here.
        no_split_module_classes: names of classes that are kept whole; left out, what the model's own code says.
        dtype: the dtype that the model runs in; its own where left out.
        special_dtypes: dtypes of single tensors by name.
        verbose: log the plan's reasons.
        clean_result: fold whole subtrees into one key; otherwise one key a module that was placed.
        offload_buffers: whether buffers follow their module to cpu or disk.
        fallback_allocation: accepted for its users; nothing has to be asked for here.
        tied_parameters: groups of names that share one tensor; left out, what the model says.
        machine: the devices where `max_memory` is left out.

    Raises:
        ResolutionError: no plan fits what is offered; with the shortfall in bytes.
        UsageError: a budget or a device that cannot be read.
    """
    inventory = _described(model, special_dtypes, tied_parameters)
    config = _config(max_memory, no_split_module_classes, dtype, Strategy.SEQUENTIAL, offload_buffers=offload_buffers)
    plan = resolve(config, inventory, machine=machine)
    if verbose:
        for reason in plan.reasons:
            _log.info(reason)
    names = {_device(key).plain: key for key in max_memory or () if isinstance(key, str) and not key.isdecimal()}
    found = dict(plan.device_map) if clean_result else _per_atom(plan)
    return {path: names.get(value, value) for path, value in found.items()}


def get_balanced_memory(
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    low_zero: bool = False,
    *,
    machine: MachineProfile | None = None,
) -> dict[int | str, int]:
    """Budgets in bytes with which `infer_auto_device_map` gives the exact balanced split.

    Each accelerator gets what it carries in that split (weights, and room to stream where that is needed); `cpu` and `disk` keep
    theirs. `low_zero` keeps the first accelerator as light as the others allow. Where no plan fits, the budgets come back as
    they were: planning with them says what is missing. The caller's mapping is never changed.

    Raises:
        UsageError: a budget or a device that cannot be read.
        ResolutionError: neither `max_memory` nor a machine is known.
    """
    inventory = _described(model, special_dtypes, None)
    strategy = Strategy.BALANCED_LOW_0 if low_zero else Strategy.BALANCED
    config = _config(max_memory, no_split_module_classes, dtype, strategy, offload_buffers=False)
    if max_memory is None and machine is None:
        raise ResolutionError("neither max_memory nor a machine is known", help="pass max_memory={0: '20GB', ...}")
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
        use.device: use.weight_bytes + sum(charge.nbytes for charge in use.charges if charge.what != "headroom") for use in plan.devices
    }
    return {names[device]: carried[device] if device.is_accelerator else int(nbytes) for device, nbytes in sorted(given.items())}


def _devices(machine: MachineProfile | None) -> dict[Device, MachineDevice]:
    return {} if machine is None else {device: known for device, known in machine.devices.items() if str(device) != "disk"}


def _described(
    model: nn.Module | Inventory, special_dtypes: Mapping[str, object] | None, tied_parameters: Sequence[Sequence[str]] | None
) -> Inventory:
    inventory = model if isinstance(model, Inventory) else Inventory.from_module(model)
    if special_dtypes:
        names = {name: _dtype(dtype) for name, dtype in special_dtypes.items()}
        tensors = {
            name: dataclasses.replace(tensor, dtype=names[name]) if name in names else tensor for name, tensor in inventory.tensors.items()
        }
        inventory = dataclasses.replace(inventory, tensors=tensors)
    if tied_parameters is not None:
        place = {name: at for at, name in enumerate(inventory.tensors)}
        groups = [sorted({name for name in group if name in place}, key=place.__getitem__) for group in tied_parameters]
        ties = tuple(sorted((tuple(group) for group in groups if len(group) > 1), key=lambda group: place[group[0]]))
        inventory = dataclasses.replace(inventory, ties=ties)
    return inventory


def _config(
    max_memory: Mapping[int | str, int | str] | None,
    no_split_module_classes: Sequence[str] | str | None,
    dtype: object,
    strategy: Strategy,
    *,
    offload_buffers: bool,
) -> PlacementConfig:
    whole = [no_split_module_classes] if isinstance(no_split_module_classes, str) else no_split_module_classes
    return PlacementConfig(
        version=1,
        model=ModelSource(dtype=None if dtype is None else _dtype(dtype)),
        device_map={"": strategy},
        max_memory=None if max_memory is None else _budgets(max_memory),
        no_split_module_classes=None if whole is None else list(whole),
        offload=OffloadSettings(buffers=offload_buffers),
    )


def _dtype(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _budgets(max_memory: Mapping[int | str, int | str]) -> dict[Device, Bytes | Percent]:
    return {_device(key): _bytes(key, amount) for key, amount in max_memory.items()}


def _device(key: int | str) -> Device:
    try:
        return parse_device(key)
    except ValueError as error:
        raise UsageError(f"max_memory: {error}") from None


def _bytes(key: int | str, amount: float | str) -> Bytes:
    """A budget; a float, which Accelerate's own arithmetic makes, is rounded down."""
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
