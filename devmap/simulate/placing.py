"""Where a plan puts each tensor and module of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from devmap.devices.simulated_registration import SIM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from devmap.config.values.device import Device
    from devmap.plan.model import Placement, Plan

__all__ = ["executing_devices", "placement_of", "torch_device"]


def torch_device(device: Device) -> torch.device:
    """Return the name that a device of the plan has in a simulation."""
    return torch.device(SIM, device.index) if device.is_accelerator else torch.device("cpu")


def placement_of(name: str, placements: Mapping[str, Placement]) -> Placement | None:
    """Return the placement that covers a tensor or a module: its own or that of the nearest module above.

    None if nothing does.
    """
    while True:
        found = placements.get(name)
        if found is not None or not name:
            return found
        name = name.rpartition(".")[0]


def executing_devices(model: nn.Module, plan: Plan) -> dict[str, torch.device]:
    """Return the device that each placed module's input has to be brought to, by path.

    For a tensor that is placed on its own this is the module that owns it, unless that module's own tensors
    are on several.
    """
    modules = {path for path, _ in model.named_modules()}
    found: dict[str, torch.device] = {}
    for placement in plan.placements:
        path = placement.path if placement.path in modules else placement.path.rpartition(".")[0]
        found.setdefault(path, torch_device(placement.executes_on))
    return found
