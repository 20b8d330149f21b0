"""Which library's class a `config.json` means, and what that class is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ModelLibrary", "class_of", "library_of"]

ModelLibrary = Literal["transformers", "diffusers", "timm"]


def library_of(config: Mapping[str, object]) -> ModelLibrary:
    """Return the library that wrote a config.

    diffusers names the class as `_class_name`, timm an `architecture`; all others are Transformers' own,
    which list `architectures`.

    >>> library_of({"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.30.0"})
    'diffusers'
    >>> library_of({"architecture": "resnet18", "num_classes": 10})
    'timm'
    """
    if not ({"architectures", "model_type"} & config.keys()):
        if isinstance(config.get("_class_name"), str):
            return "diffusers"
        if isinstance(config.get("architecture"), str):
            return "timm"
    return "transformers"


def class_of(config: Mapping[str, object]) -> str:
    """Return the name of the class that a config means, of timm that of the architecture; may be empty."""
    library = library_of(config)
    if library != "transformers":
        return str(config["_class_name" if library == "diffusers" else "architecture"])
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""
