"""The parameters of torchao: tensors of a class that holds several."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from devmap.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

__all__ = ["Subclass", "settings_in"]


@dataclass(frozen=True)
class Subclass:
    """A parameter of one of torchao's tensor classes over the tensors inside it."""

    names: tuple[str, ...]
    keys: tuple[str, ...]
    """What the class calls each of them: `qdata`, `scale`."""
    settings: Mapping[str, Any]
    """Its class and what is no tensor, as torchao stores it."""

    def assemble(self, parts: Mapping[str, torch.Tensor]) -> nn.Parameter:
        """Make the parameter over its parts where they lie."""
        inside = {key: parts[name] for name, key in zip(self.names, self.keys, strict=True)}
        settings = copy.deepcopy(dict(self.settings))
        settings["_data"].update(inside)
        made = import_module("torchao.prototype.safetensors.safetensors_utils").object_from_dict(settings)
        return nn.Parameter(made, requires_grad=False)

    def parts(self, parameter: Any) -> Mapping[str, torch.Tensor]:
        """Return the tensors inside a parameter."""
        return {name: getattr(parameter, key) for name, key in zip(self.names, self.keys, strict=True)}

    def attach(self, parameter: torch.Tensor) -> None:
        """Do nothing: a linear layer uses what stands in its table."""

    def detach(self) -> None:
        """Do nothing, for the same reason."""

    def stream(self, *, on: bool) -> None:
        """Do nothing, for the same reason."""


def settings_in(metadata: Mapping[str, str], name: str) -> Mapping[str, Any] | None:
    """Return what the files' metadata say of a weight, by its stored name; None where it is stored whole.

    Raises:
        LoadError: where torchao's metadata cannot be read.
    """
    if name not in metadata:
        return None
    try:
        found = json.loads(metadata[name])
    except (ValueError, RecursionError) as error:
        raise LoadError(f"torchao's metadata of '{name}' cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("_tensor_data_names"), list):
        return None
    return found
