"""Several models that are placed together: one engine, one set of slots, each with its own passes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.runtime.storage.packing import PackedParameter

__all__ = ["Components", "PackedBelow", "entries_of", "with_moved_parts"]


class Components(nn.ModuleDict):
    """Models by name, as `devmap.load` returns those of a config with `components`.

    `**components` gives them to a pipeline.
    """


class PackedBelow:
    """A quantised parameter of a component: its parts have the component's name before theirs."""

    def __init__(self, name: str, packing: PackedParameter) -> None:
        self._prefix = f"{name}."
        self._packing = packing

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, as the inventory of all components names them."""
        return tuple(self._prefix + name for name in self._packing.names)

    def assemble(self, parts: Mapping[str, torch.Tensor]) -> nn.Parameter:
        """Make the parameter over its parts."""
        return self._packing.assemble({name.removeprefix(self._prefix): part for name, part in parts.items()})

    def parts(self, parameter: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the parts of a parameter that `assemble` made."""
        return {self._prefix + name: part for name, part in self._packing.parts(parameter).items()}

    def attach(self, parameter: torch.Tensor) -> None:
        """Let the module use the parameter."""
        self._packing.attach(parameter)

    def detach(self) -> None:
        """Drop whatever the module keeps of the parameter."""
        self._packing.detach()

    def stream(self, *, on: bool) -> None:
        """Prepare the module for parameters that come and go, or for one that stays."""
        self._packing.stream(on=on)


def entries_of(model: nn.Module) -> tuple[str, ...]:
    """Return the methods beside `forward` that callers of a model of diffusers enter it by.

    Pipelines call an autoencoder's `encode` and `decode`, and never its forward.
    """
    if not hasattr(model, "_repeated_blocks"):
        return ()
    return tuple(name for name in ("encode", "decode") if callable(getattr(model, name, None)))


def with_moved_parts(output: Any, device: torch.device) -> Any:
    """Return an output whose distribution, an object with tensors in it, is on a device.

    An autoencoder's `encode` returns one as `latent_dist`, or as the first of a tuple.
    """
    if isinstance(output, dict):
        if (found := output.get("latent_dist")) is None:
            return output
        moved = copy.copy(output)
        moved["latent_dist"] = _moved(found, device)
        return moved
    if type(output) is tuple:
        return tuple(each if isinstance(each, torch.Tensor) else _moved(each, device) for each in output)
    return output


def _moved(value: Any, device: torch.device) -> Any:
    known = getattr(value, "__dict__", None)
    if not known or not any(isinstance(part, torch.Tensor) for part in known.values()):
        return value
    moved = copy.copy(value)
    for key, part in known.items():
        if isinstance(part, torch.Tensor):
            setattr(moved, key, part.to(device))
    return moved
