"""The inventory of a checkpoint through the model that its library builds for it on the meta device."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from devmap.errors import InventoryError
from devmap.inventory.live.cache import keep
from devmap.inventory.live.live_match import rules_between
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.live.other_libraries import constructor_of
from devmap.inventory.table.libraries import library_of

if TYPE_CHECKING:
    from torch import nn

    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.checkpoint import Checkpoint

__all__ = ["build_on_meta", "describe_built", "read_through_transformers"]


def read_through_transformers(checkpoint: Checkpoint) -> Inventory:
    """Build the model of `config.json` on meta, read it, and match the checkpoint with it.

    The library is the one that wrote the config: transformers, diffusers or timm.

    Tensors take the dtype that the checkpoint holds them in. What is found is kept for the next time.

    Raises:
        InventoryError: when the library is not installed, or does not know the architecture.
    """
    model = build_on_meta(checkpoint)
    found = describe_built(model, checkpoint)
    keep(found, rules_between(model, found, checkpoint), checkpoint)
    return found


def describe_built(model: nn.Module, checkpoint: Checkpoint) -> Inventory:
    """Return a module that was built for a checkpoint, matched with it.

    Tensors have the dtypes they are stored in.
    """
    return _with_stored_dtypes(match_checkpoint(read_module(model), checkpoint, model))


def build_on_meta(checkpoint: Checkpoint) -> nn.Module:
    """Return the module that its library builds from a checkpoint's `config.json`, without weights.

    Never runs the checkpoint's own code.

    Raises:
        InventoryError: as `read_through_transformers`.
    """
    try:
        if library_of(checkpoint.config) == "transformers":
            return _build_with_transformers(checkpoint)
        constructor = constructor_of(checkpoint.config)
        with torch.device("meta"):
            return constructor()
    except (OSError, ImportError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        library = library_of(checkpoint.config)
        raise InventoryError(
            f"{library} cannot build the model of '{checkpoint.folder}': {reason}"
        ) from error


def _build_with_transformers(checkpoint: Checkpoint) -> nn.Module:
    try:
        import transformers  # noqa: PLC0415 - an optional dependency, and heavy
    except ImportError as error:
        raise InventoryError(
            "transformers is not installed", help="pip install 'torch-devmap[transformers]'"
        ) from error
    config = transformers.AutoConfig.from_pretrained(
        checkpoint.folder, trust_remote_code=False, local_files_only=True
    )
    model_class = next(
        (
            found
            for name in config.architectures or ()
            if (found := getattr(transformers, name, None)) is not None
        ),
        transformers.AutoModel,
    )
    build = getattr(model_class, "_from_config", None) or model_class.from_config
    with torch.device("meta"):
        built: nn.Module = build(config, dtype=config.dtype or _first_float(checkpoint))
    return built


def _first_float(checkpoint: Checkpoint) -> torch.dtype:
    for tensor in checkpoint.tensors.values():
        dtype = getattr(torch, tensor.dtype, None)
        if isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize > 1:
            return dtype
    return torch.float32


def _with_stored_dtypes(inventory: Inventory) -> Inventory:
    assert inventory.checkpoint is not None
    assert inventory.mapping is not None
    held, pieces = inventory.checkpoint.tensors, inventory.mapping.pieces
    tensors = {
        name: tensor._replace(dtype=held[pieces[name][0].stored].dtype) if pieces.get(name) else tensor
        for name, tensor in inventory.tensors.items()
    }
    return dataclasses.replace(inventory, tensors=tensors)
