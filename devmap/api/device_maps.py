"""Device maps for programs that plan with plain dicts, under the names that Accelerate's users know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.checking import device_map as checking
from devmap.inventory.model import Inventory
from devmap.planning import accelerate_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from devmap.config.model import MachineProfile

__all__ = ["check_device_map", "get_balanced_memory", "infer_auto_device_map"]


def check_device_map(
    model: nn.Module | Inventory,
    device_map: Mapping[str, int | str],
    no_split_module_classes: Sequence[str] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
) -> None:
    """Check that a device map fits a model, in time linear in the map plus the model's tensors.

    Every parameter and buffer is covered, every key names something, no class of `no_split_module_classes` (default: what
    the model's own code says) is spread over devices, tied tensors are together, and no device of `max_memory` (bytes, or
    text such as `20GB`) holds more than it may.

    Raises:
        DeviceMapError: listing every problem; it is a ValueError too.
    """
    inventory = model if isinstance(model, Inventory) else Inventory.from_module(model)
    # torch.device is what transformers' maps hold, and nothing below this layer knows torch.
    device_map = {path: str(device) if type(device).__name__ == "device" else device for path, device in device_map.items()}
    checking.check_device_map(inventory, device_map, no_split_module_classes=no_split_module_classes, max_memory=max_memory)


def infer_auto_device_map(  # noqa: PLR0917 - Accelerate's signature
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    verbose: bool = False,
    clean_result: bool = True,
    offload_buffers: bool = False,
    fallback_allocation: bool = False,
    tied_parameters: Sequence[Sequence[str]] | None = None,
) -> dict[str, int | str]:
    """A device map within `max_memory`, by default this machine's devices: see `devmap.planning.accelerate_names`.

    Raises:
        ResolutionError: no plan fits what is offered; with the shortfall in bytes.
    """
    return accelerate_names.infer_auto_device_map(
        model,
        max_memory,
        no_split_module_classes,
        dtype,
        special_dtypes,
        verbose,
        clean_result,
        offload_buffers,
        fallback_allocation,
        tied_parameters,
        machine=_machine(max_memory),
    )


def get_balanced_memory(
    model: nn.Module | Inventory,
    max_memory: Mapping[int | str, int | str] | None = None,
    no_split_module_classes: Sequence[str] | str | None = None,
    dtype: object = None,
    special_dtypes: Mapping[str, object] | None = None,
    low_zero: bool = False,
) -> dict[int | str, int]:
    """Budgets in bytes with which `infer_auto_device_map` gives the exact balanced split.

    `max_memory` is by default this machine's devices, and is never changed.
    """
    return accelerate_names.get_balanced_memory(
        model, max_memory, no_split_module_classes, dtype, special_dtypes, low_zero, machine=_machine(max_memory)
    )


def _machine(max_memory: object) -> MachineProfile | None:
    if max_memory is not None:
        return None
    from devmap.devices.probe import this_machine  # noqa: PLC0415 - imports torch, which a given max_memory does not need

    return this_machine()
