"""The inventory that a config means: from its manifest, its checkpoint's headers, or its factory."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from devmap.config.regular_files import real_path
from devmap.config.repository import without_content
from devmap.errors import InventoryError, ManifestError, QuantizationError, UsageError
from devmap.inventory.components import joined
from devmap.inventory.model import Inventory
from devmap.inventory.quantizing import quantized
from devmap.inventory.reader import read_checkpoint
from devmap.inventory.stored.checkpoint import read_headers
from devmap.inventory.stored.hub import find_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from devmap.config.model.placement_config import ModelSource, PlacementConfig
    from devmap.inventory.reader import Library
    from devmap.inventory.stored.checkpoint import Checkpoint

__all__ = ["build_with_factory", "headers_of", "inventory_of", "require_one_way"]


def inventory_of(
    config: PlacementConfig,
    *,
    allow_code: bool = False,
    built: nn.Module | None = None,
    through_transformers: Library = "where needed",
) -> Inventory:
    """Return what the config's model is made of.

    The manifest if there is one, else the checkpoint's headers, else its factory; with components, all of
    theirs, each below its name.

    `built` is what the factory has made, where that is known already; `through_transformers` says when
    Transformers is asked what the headers do not tell.

    Raises:
        InventoryError: when the source is absent or wrong, or the config names none; when it cannot be
            quantised as the config asks.
        UsageError: when only a factory is named and code is not allowed.
    """
    if config.components:
        parts = {}
        for name in config.components:
            alone = config.of_component(name)
            try:
                if config.takes_turns and alone.model.quantization is not None:
                    raise QuantizationError(
                        "components that take turns are not quantised while they are loaded",
                        help="write residency: together, or leave quantization out",
                    )
                parts[name] = inventory_of(
                    alone, allow_code=allow_code, through_transformers=through_transformers
                )
            except InventoryError as error:
                error.component = error.component or name
                raise
        return joined(parts, {name: source.dtype for name, source in config.components.items()})
    found = _whole_inventory(
        config, allow_code=allow_code, built=built, through_transformers=through_transformers
    )
    model = config.model
    if model.quantization is None:
        return found
    require_one_way(model)
    return quantized(found, model.quantization, dtype=model.dtype)


def require_one_way(source: ModelSource) -> None:
    """Check that nothing else in a source says how its weights are loaded, where they are to be quantised.

    Raises:
        QuantizationError: when something does.
    """
    if source.dequantize:
        raise QuantizationError(
            "model.dequantize and model.quantization contradict each other",
            help="leave one of them out: weights are loaded whole, or quantised while they are loaded",
        )
    if source.factory is not None:
        raise QuantizationError(
            "a module that a factory makes is not quantised while it is loaded",
            help="leave model.factory out, so that Transformers builds the module, or model.quantization",
        )


def _whole_inventory(
    config: PlacementConfig,
    *,
    allow_code: bool,
    built: nn.Module | None,
    through_transformers: Library,
) -> Inventory:
    """Return what a config of one model names, as it is stored."""
    model = config.model
    if model.manifest is not None:
        path = config.folder / model.manifest
        try:
            return Inventory.from_manifest(path)
        except ManifestError as error:
            raise without_content(error, path, config.folder) from None
    if model.checkpoint is not None:
        return read_checkpoint(
            _checkpoint_of(config),
            through_transformers=through_transformers,
            variant=model.variant,
            dequantize=model.dequantize,
        )
    if model.factory is not None:
        return Inventory.from_module(
            build_with_factory(config, allow_code=allow_code) if built is None else built
        )
    raise InventoryError(
        "the config names no model", help="add model.checkpoint, model.manifest or model.factory"
    )


def _checkpoint_of(config: PlacementConfig) -> Path:
    """Return the folder or file of the config's checkpoint.

    Raises:
        CheckpointError: when it is not there.
        InventoryError: when the config names none.
    """
    if config.model.checkpoint is None:
        raise InventoryError(
            "the config names no checkpoint", help="add model.checkpoint: a folder with safetensors files"
        )
    return find_checkpoint(config.model.checkpoint, folder=config.folder)


def headers_of(config: PlacementConfig) -> Checkpoint:
    """Return the config's checkpoint as its headers describe it.

    Raises:
        CheckpointError: when it is not there, damaged or in another format.
        InventoryError: when the config names none.
    """
    return read_headers(_checkpoint_of(config), variant=config.model.variant)


def build_with_factory(config: PlacementConfig, *, allow_code: bool) -> nn.Module:
    """Return the module that `model.factory` makes, on the meta device. Runs the config's code.

    Raises:
        UsageError: unless code is allowed, and when the factory cannot be imported or makes no module.
    """
    factory = config.model.factory
    assert factory is not None
    if not allow_code:
        raise UsageError(
            f"model.factory '{factory}' runs code",
            help="pass --allow-code (allow_code=True) if you trust this config",
        )
    from torch import nn  # noqa: PLC0415 - heavy, and only for a factory

    from devmap.runtime.meta_build import build_empty  # noqa: PLC0415 - imports torch

    module_name, _, function_name = factory.partition(":")
    folder = str(real_path(config.folder))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"model.factory '{factory}': {error}",
            help="expected package.module:function, importable from here",
        ) from error
    model = build_empty(function)
    if not isinstance(model, nn.Module):
        raise UsageError(f"model.factory '{factory}' made a {type(model).__name__}, expected an nn.Module")
    return model
