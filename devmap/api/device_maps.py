"""Device maps for programs that plan with plain dicts, under the names that Accelerate's users know."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from devmap.checking import device_map as checking
from devmap.inventory.model import Inventory
from devmap.planning.accelerate_compat import (
    MapRequest,
    balanced_memory,
    class_names,
    device_map_of,
    sequential_plan,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from devmap.config.model.placement_config import MachineProfile

__all__ = ["check_device_map", "get_balanced_memory", "infer_auto_device_map"]

_log = logging.getLogger(__name__)


def check_device_map(
    model: nn.Module | Inventory,
    device_map: Mapping[str, int | str],
    no_split_module_classes: Sequence[str] | str | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
) -> None:
    """Check that a device map fits a model, in time linear in the map plus the model's tensors.

    Every parameter and buffer is covered, every key names something, no class of `no_split_module_classes`
    (default: what the model's own code says) is spread over devices, tied tensors are together, and no device
    of `max_memory` (bytes, or text such as `20GB`) holds more than it may.

    Raises:
        DeviceMapError: listing every problem; it is a ValueError too.
    """
    if any(
        kind.__name__ == "device" for kind in set(map(type, device_map.values()))
    ):  # torch.device, as transformers' maps have it
        device_map = {
            path: str(device) if type(device).__name__ == "device" else device
            for path, device in device_map.items()
        }
    classes = class_names(no_split_module_classes)
    if not isinstance(model, Inventory) and max_memory is None and _surely_fits(model, device_map, classes):
        return
    checking.check_device_map(
        _inventory_of(model), device_map, no_split_module_classes=classes, max_memory=max_memory
    )


def infer_auto_device_map(  # noqa: PLR0917 - Accelerate's signature
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    verbose: bool = False,
    clean_result: bool = True,
    offload_buffers: bool = False,
    # Accelerate's signature; a huge first module is always stepped round here.
    fallback_allocation: bool = False,  # noqa: ARG001
    tied_parameters: Sequence[Sequence[str]] | None = None,
) -> dict[str, int | str]:
    """Return a device map that fills device 0, then 1, ... then cpu, then disk.

    Each within its budget to the byte.

    Args:
        model: an `nn.Module` (on any device, or meta), or an inventory.
        max_memory: bytes, or text such as `10GiB`, by device; never changed; by default this machine's
            devices. `cpu` and `disk` are used only if they stand here.
        no_split_module_classes: names of classes that are kept whole; left out, what the model's own code
            says.
        dtype: the dtype that the model runs in; its own where left out. Accelerate's `CustomDtype` (FP8,
        INT4,
            INT2) counts so many bits for each element of a floating parameter.
        special_dtypes: dtypes of single tensors by name, which `dtype` does not change.
        verbose: log the plan's reasons.
        clean_result: fold whole subtrees into one key; otherwise one key a module that was placed.
        offload_buffers: whether buffers follow their module to cpu or disk.
        fallback_allocation: accepted for its users; nothing has to be asked for here.
        tied_parameters: groups of names that share one tensor; left out, what the model says.

    Raises:
        ResolutionError: no plan fits what is offered; with the shortfall in bytes.
        UsageError: a budget or a device that cannot be read.
    """
    request = MapRequest(
        _inventory_of(model),
        max_memory,
        no_split_module_classes,
        dtype,
        special_dtypes,
        offload_buffers,
        tied_parameters,
        _machine(max_memory),
    )
    plan = sequential_plan(request)
    if verbose:
        for reason in plan.reasons:
            _log.info(reason)
    return device_map_of(plan, request, clean_result=clean_result)


def get_balanced_memory(
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    low_zero: bool = False,
) -> dict[int | str, int]:
    """Return the budgets in bytes with which `infer_auto_device_map` gives the exact balanced split.

    Each accelerator gets what it carries in that split; `cpu` and `disk` keep theirs. `low_zero` keeps the
    first accelerator as light as the others allow. `max_memory` is by default this machine's devices, and is
    never changed.

    Raises:
        UsageError: a budget or a device that cannot be read.
    """
    request = MapRequest(
        _inventory_of(model),
        max_memory,
        no_split_module_classes,
        dtype,
        special_dtypes,
        machine=_machine(max_memory),
    )
    return balanced_memory(request, low_zero=low_zero)


def _surely_fits(
    model: nn.Module, device_map: Mapping[str, int | str], classes: Sequence[str] | None
) -> bool:
    # Imports torch, which an inventory does not need.
    from devmap.checking.live_map import surely_fits  # noqa: PLC0415

    return surely_fits(model, device_map, classes)


def _inventory_of(model: nn.Module | Inventory) -> Inventory:
    return model if isinstance(model, Inventory) else Inventory.from_module(model)


def _machine(max_memory: object) -> MachineProfile | None:
    if max_memory is not None:
        return None
    # Imports torch, which a given max_memory does not need.
    from devmap.devices.probe import this_machine  # noqa: PLC0415

    return this_machine()
