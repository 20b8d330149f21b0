"""The live module that a config means, on meta, and what it and its checkpoint say of each other."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.sources import build_with_factory, inventory_of
from devmap.errors import LoadError
from devmap.inventory.live.through_transformers import describe_built
from devmap.inventory.quantization import quantization_of, restore, split
from devmap.plan.lock import lock_path
from devmap.runtime.initial_values import empty_stored, fill_computed_buffers, initialise_missing
from devmap.runtime.meta_build import build_on_meta
from devmap.runtime.quantized.quantizer import prepare_quantised
from devmap.runtime.transformers_conversion import convert_the_rest
from devmap.runtime.untying import untie_what_differs

if TYPE_CHECKING:
    import os

    from torch import nn

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.inventory.quantization import Quantization
    from devmap.inventory.stored.checkpoint import Checkpoint
    from devmap.runtime.quantized.quantizer import Quantised

__all__ = ["Built", "build", "planned_from"]


@dataclasses.dataclass(frozen=True)
class Built:
    """A module on meta, but for what no checkpoint gives, with its inventory."""

    model: nn.Module
    inventory: Inventory
    initialised: tuple[str, ...] = ()
    """Tensors that the checkpoint does not have and the model's own code gave values."""
    quantised: Quantised | None = None
    """What Transformers' quantizer prepared, where the checkpoint is quantised."""


def build(
    config: PlacementConfig,
    checkpoint: Checkpoint,
    *,
    model: nn.Module | None = None,
    allow_code: bool = False,
) -> Built:
    """Build the config's module, or take the one that is given, and match the checkpoint with it.

    Whatever the checkpoint stores is on meta afterwards. What it lacks is initialised by the code of a
    transformers model; a warning names it.

    Raises:
        LoadError: when transformers cannot build the model.
        UsageError: when a factory is named and code is not allowed, or it makes no module.
    """
    quantization = quantization_of(checkpoint.config)
    if quantization is not None:
        return _build_quantised(config, checkpoint, quantization, model)
    if model is not None:
        if hasattr(model, "initialize_weights"):  # what no checkpoint holds is computed by its own code
            fill_computed_buffers(model)
    elif config.model.factory:
        model = build_with_factory(config, allow_code=allow_code)
    else:
        model = build_on_meta(checkpoint, dtype=config.model.dtype)
    inventory = describe_built(model, checkpoint)
    if untie_what_differs(model, inventory):
        inventory = describe_built(model, checkpoint)
    inventory = convert_the_rest(model, inventory)
    return _filled(model, inventory, None)


def _build_quantised(
    config: PlacementConfig, checkpoint: Checkpoint, quantization: Quantization, given: nn.Module | None
) -> Built:
    """Build the module of a quantised checkpoint, with the modules that run its weights."""
    if given is not None or config.model.factory:
        raise LoadError(
            f"this checkpoint is quantised ({quantization.label}): its "
            "module is built by Transformers, and no "
            "other is filled with its weights",
            help="leave model.factory and the module out; or give devmap "
            "the checkpoint that is not quantised",
        )
    model = build_on_meta(checkpoint, dtype=config.model.dtype)
    whole, parts = split(checkpoint, quantization)
    inventory = restore(describe_built(model, whole), checkpoint, parts)
    quantised = prepare_quantised(model, checkpoint, inventory, quantization)
    return _filled(model, inventory, quantised)


def _filled(model: nn.Module, inventory: Inventory, quantised: Quantised | None) -> Built:
    """Give values to what no checkpoint has, and forget those of what it has."""
    assert inventory.mapping is not None
    empty_stored(model, inventory.mapping.pieces)
    initialised = initialise_missing(model, inventory.mapping.missing)
    if initialised:
        listed = ", ".join(f"'{name}'" for name in initialised[:3])
        more = f" and {len(initialised) - 3} more" if len(initialised) > 3 else ""
        warnings.warn(
            f"the checkpoint has no {listed}{more}: initialised by the model's own code", stacklevel=4
        )
    return Built(model, inventory, initialised, quantised)


def planned_from(
    config: PlacementConfig,
    built: Built | None,
    path: str | os.PathLike[str] | None,
    *,
    profile: str | None,
    allow_code: bool,
) -> Inventory:
    """Return the inventory to plan with.

    The live module knows best. A manifest, or a lock beside the config's file at `path`, was reviewed with
    the inventory that it was made from, which has to be the same one now. `path` is None where no lock
    counts.
    """
    has_lock = path is not None and lock_path(Path(path), profile).exists()
    if built is not None and config.model.manifest is None and not has_lock:
        return built.inventory
    return inventory_of(config, allow_code=allow_code)
