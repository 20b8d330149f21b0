"""Whether a device map fits a live module, told in one walk and without an inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import parse_device
from devmap.inventory.bulk import collector_paused
from devmap.inventory.live.module import are_plain, are_tied, asked_whole, is_module
from devmap.inventory.repeated_blocks import repeated_blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch
    from torch import nn

    from devmap.config.values.device import Device

__all__ = ["surely_fits"]


@collector_paused()
def surely_fits(
    model: nn.Module,
    device_map: Mapping[str, int | str],
    no_split_module_classes: Collection[str] | None = None,
) -> bool:
    """Return whether `devmap.checking.device_map.check_device_map`, without budgets.

    Surely finds no error in a map.

    False says nothing: a map that names single tensors, a model with ties, or one with classes of tensors of
    its own is left to that check, and so is every map with a fault, whose words need the whole inventory.
    Linear in the modules and tensors.
    """
    devices = _devices_of(device_map)
    if devices is None or not is_module(model):
        return False
    whole = frozenset(no_split_module_classes if no_split_module_classes is not None else asked_whole(model))
    while True:
        walk = _Walk(devices, whole)
        if not walk.over(model):
            return False
        if no_split_module_classes is None and hasattr(model, "base_model_prefix"):
            classes = {path: type(module).__name__ for path, module in model.named_modules()}
            walk.asked.update(repeated_blocks(classes, whole | walk.asked))
        if no_split_module_classes is not None or walk.asked <= whole:
            return are_plain(walk.held) and not are_tied(walk.held)
        whole |= walk.asked  # a module further down asks for classes that were passed by before


def _devices_of(device_map: Mapping[str, int | str]) -> dict[str, Device] | None:
    """Return the map with its values parsed.

    None where a value is no device, or devices of several backends are mixed.
    """
    if not {type(value) for value in device_map.values()} <= {int, str}:
        return None
    try:
        parsed = {value: parse_device(value) for value in set(device_map.values())}
    except ValueError:
        return None
    if len({device.backend for device in parsed.values()} - {None}) > 1:
        return None
    return {path: parsed[value] for path, value in device_map.items()}


class _Walk:
    """One walk over a model along its map."""

    def __init__(self, devices: Mapping[str, Device], whole: Collection[str]) -> None:
        """`whole` holds the names of the classes that must not be spread over devices."""
        self.held: list[torch.Tensor] = []
        """Every tensor under each of its names."""
        self.asked: set[str] = set()
        """The classes that the model's own code keeps whole."""
        self._devices = devices
        self._whole = whole

    # A call for each of 10^5 modules would take as long as all of this.
    def over(self, model: nn.Module) -> bool:  # noqa: C901, PLR0912
        """Return whether every tensor has a device, every key names a module with tensors.

        And no class that must be whole is spread.
        """
        devices, held, is_whole = self._devices, self.held, _Kinds(self._whole, self.asked)
        found = 0
        pending: list[tuple[str, nn.Module, Device | None, list[Device] | None] | int] = [
            ("", model, None, None)
        ]
        while pending:
            item = pending.pop()
            if isinstance(item, int):  # all below a key without tensors of its own has been seen
                found -= len(held) == item
                continue
            path, module, device, block = item
            own = vars(module)
            if block is None and is_whole[type(module)]:
                block = []
            before = len(held)
            for tensor in own["_parameters"].values():
                if tensor is not None:
                    held.append(tensor)
            if own["_buffers"]:
                for tensor in own["_buffers"].values():
                    if tensor is not None:
                        held.append(tensor)
            if path in devices:
                device = devices[path]
                found += 1
                if len(held) == before:
                    pending.append(before)
            if len(held) > before and (device is None or not (block is None or _joins(device, block))):
                return False
            if "_no_split_modules" in own:
                self.asked.update(asked_whole(module))
            if own["_modules"]:
                prefix = f"{path}." if path else ""
                for name, child in own["_modules"].items():
                    if child is not None:
                        pending.append((prefix + name, child, device, block))
        return found == len(devices)


class _Kinds(dict[type, bool]):
    """Whether a module's class must be whole, looked at once a class; with what the class itself asks for."""

    def __init__(self, whole: Collection[str], asked: set[str]) -> None:
        super().__init__()
        self._whole = whole
        self._asked = asked

    def __missing__(self, kind: type) -> bool:
        self._asked.update(asked_whole(kind))
        self[kind] = kind.__name__ in self._whole
        return self[kind]


def _joins(device: Device, block: list[Device]) -> bool:
    """Add a device to those of a block, and say whether they are all the same."""
    block.append(device)
    return block[0] == device
