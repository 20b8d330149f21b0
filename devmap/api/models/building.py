"""The live module that a config means, on meta, and what it and its checkpoint say of each other."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.sources import build_with_factory, headers_of, inventory_of, require_one_way
from devmap.errors import InventoryError, LoadError, UsageError
from devmap.inventory.atoms import tensor_sizes
from devmap.inventory.components import joined
from devmap.inventory.live.through_transformers import describe_built
from devmap.inventory.quantization import as_whole, quantization_of, restore, split, with_whole_weights
from devmap.inventory.quantizing import require_whole
from devmap.inventory.table.libraries import library_of
from devmap.plan.lock import lock_path
from devmap.runtime.components import Components, PackedBelow
from devmap.runtime.initial_values import empty_stored, fill_computed_buffers, initialise_missing
from devmap.runtime.meta_build import build_on_meta
from devmap.runtime.quantized.dequantized import dequantized_weights
from devmap.runtime.quantized.quantizer import prepare_quantised
from devmap.runtime.quantized.quantizing import prepare_quantising
from devmap.runtime.transformers_conversion import convert_the_rest
from devmap.runtime.untying import untie_what_differs

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import nn

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.model.quantization_settings import QuantizationSettings
    from devmap.inventory.model import Inventory
    from devmap.inventory.quantization import Quantization
    from devmap.inventory.stored.checkpoint import Checkpoint
    from devmap.plan.model import Plan
    from devmap.runtime.quantized.quantizer import Quantised
    from devmap.runtime.storage.packing import PackedParameter

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
    quantised_parts: Mapping[str, Quantised] = dataclasses.field(default_factory=dict)
    """The same of components, by their names."""
    makers: Mapping[str, Callable[[], torch.Tensor]] = dataclasses.field(default_factory=dict)
    """What computes the weights that are dequantised, or quantised, while they are loaded, by name."""
    at_once: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Bytes of host memory that the largest conversion of a weight takes, by the weight's name."""

    @property
    def packings(self) -> dict[str, PackedParameter]:
        """How the parts of quantised parameters make them, by the parameters' names."""
        found = dict(self.quantised.packings) if self.quantised is not None else {}
        for name, part in self.quantised_parts.items():
            found |= {f"{name}.{owner}": PackedBelow(name, each) for owner, each in part.packings.items()}
        return found

    def require_room(self, plan: Plan) -> None:
        """Check that a plan has room for weights that are quantised on their way, and for making them.

        Raises:
            LoadError: when it counts fewer bytes than the model will take, or loading may not use enough.
        """
        if not self.at_once:
            return
        sizes, owner = tensor_sizes(self.inventory, plan.dtype), self.inventory.owner
        held = sum(nbytes for name, nbytes in sizes.items() if owner.get(name, name) == name)
        planned = sum(placement.nbytes for placement in plan.placements)
        if held > planned:
            # From headers alone the head of a class may not be known that Transformers leaves whole.
            raise LoadError(
                f"the plan counts {planned:,} bytes, and the model takes {held:,} as Transformers quantises "
                "it",
                help="load it without its lock and manifest (use_lock=False, or --no-lock), which plans with "
                "what Transformers says",
            )
        for name, nbytes in self.at_once.items():
            if nbytes > plan.host_memory_bytes:
                raise LoadError(
                    f"to quantise '{name}' takes {nbytes:,} bytes of host memory at once; "
                    f"offload.host_memory is {plan.host_memory_bytes:,}",
                    help=f"set offload.host_memory to {nbytes} or more, or name its module among those that "
                    "stay whole",
                )

    def finish(self, model: nn.Module) -> None:
        """Let the quantizers have the last word on the loaded modules."""
        if self.quantised is not None:
            self.quantised.finish(model)
        for name, part in self.quantised_parts.items():
            part.finish(model.get_submodule(name))


def build(
    config: PlacementConfig,
    *,
    model: nn.Module | None = None,
    allow_code: bool = False,
) -> Built:
    """Build the config's module, or take the one that is given, and match the checkpoint with it.

    With components it is one module that holds them by name.

    Whatever the checkpoint stores is on meta afterwards. What it lacks is initialised by the code of a
    transformers model; a warning names it.

    Raises:
        CheckpointError: when the checkpoint is not there, damaged or in another format.
        LoadError: when transformers cannot build the model.
        UsageError: when a factory is named and code is not allowed, or it makes no module; when a module is
            given for a config of several.
    """
    if config.components:
        if model is not None:
            raise UsageError(
                "a module was given for a config with components",
                help="leave the module out, or name one model under 'model'",
            )
        return _build_components(config, allow_code=allow_code)
    checkpoint = headers_of(config)
    quantization = quantization_of(checkpoint.config)
    if quantization is not None and library_of(checkpoint.config) != "transformers":
        raise LoadError(
            f"this checkpoint is quantised ({quantization.label}) by {library_of(checkpoint.config)}, "
            "which devmap does not load",
            help="give devmap the checkpoint that is not quantised",
        )
    if config.model.quantization is not None:
        return _build_quantising(config, checkpoint, config.model.quantization, model)
    if quantization is not None:
        return _build_quantised(config, checkpoint, quantization, model)
    if model is not None:
        if hasattr(model, "initialize_weights"):  # what no checkpoint holds is computed by its own code
            fill_computed_buffers(model)
    elif config.model.factory:
        model = build_with_factory(config, allow_code=allow_code)
    else:
        model = build_on_meta(checkpoint, dtype=config.model.dtype)
    return _filled(model, _described(model, checkpoint), None)


def _described(model: nn.Module, checkpoint: Checkpoint) -> Inventory:
    """Match a module on meta with its checkpoint; what only Transformers can convert is real afterwards."""
    inventory = describe_built(model, checkpoint)
    if untie_what_differs(model, inventory):
        inventory = describe_built(model, checkpoint)
    return convert_the_rest(model, inventory)


def _build_components(config: PlacementConfig, *, allow_code: bool) -> Built:
    parts: dict[str, Built] = {}
    for name in config.components:
        try:
            parts[name] = build(config.of_component(name), allow_code=allow_code)
        except InventoryError as error:
            error.component = error.component or name
            raise
    dtypes = {name: source.dtype for name, source in config.components.items()}
    return Built(
        Components({name: part.model for name, part in parts.items()}).eval(),
        joined({name: part.inventory for name, part in parts.items()}, dtypes),
        tuple(f"{name}.{tensor}" for name, part in parts.items() for tensor in part.initialised),
        quantised_parts={name: part.quantised for name, part in parts.items() if part.quantised is not None},
        makers={
            f"{name}.{weight}": maker for name, part in parts.items() for weight, maker in part.makers.items()
        },
        at_once={
            f"{name}.{weight}": nbytes
            for name, part in parts.items()
            for weight, nbytes in part.at_once.items()
        },
    )


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
    if config.model.dequantize:
        whole, names = with_whole_weights(checkpoint, quantization)
        inventory = as_whole(describe_built(model, whole), checkpoint, names, quantization)
        makers = dequantized_weights(model, checkpoint, quantization)
        return dataclasses.replace(_filled(model, inventory, None), makers=makers)
    whole, parts = split(checkpoint, quantization)
    inventory = restore(describe_built(model, whole), checkpoint, parts)
    quantised = prepare_quantised(model, checkpoint, inventory, quantization)
    return _filled(model, inventory, quantised)


def _build_quantising(
    config: PlacementConfig, checkpoint: Checkpoint, settings: QuantizationSettings, given: nn.Module | None
) -> Built:
    """Build the module of a checkpoint with whole weights, with the modules that run them quantised."""
    if given is not None:
        raise LoadError(
            "a module that is given is not quantised while it is loaded",
            help="leave the module out, so that Transformers builds it; or leave model.quantization out",
        )
    require_one_way(config.model)
    require_whole(checkpoint)
    model = build_on_meta(checkpoint, dtype=config.model.dtype)
    built = _filled(model, _described(model, checkpoint), None)
    prepared = prepare_quantising(model, built.inventory, settings, dtype=config.model.dtype)
    return dataclasses.replace(
        built,
        inventory=prepared.inventory,
        quantised=prepared.quantised,
        makers=prepared.makers,
        at_once={prepared.largest: prepared.bytes_at_once},
    )


def _filled(model: nn.Module, inventory: Inventory, quantised: Quantised | None) -> Built:
    """Give values to what no checkpoint has, and forget those of what it has."""
    assert inventory.mapping is not None
    empty_stored(model, inventory.mapping.pieces)
    initialised = initialise_missing(model, inventory.mapping.missing)
    if initialised:
        message = f"the checkpoint has no {_listed(initialised)}: initialised by the model's own code"
        warnings.warn(message, stacklevel=4)
    if inventory.mapping.unmapped:
        message = (
            f"this model has no place for {_listed(inventory.mapping.unmapped)} of the checkpoint: not read"
        )
        warnings.warn(message, stacklevel=4)
    return Built(model, inventory, initialised, quantised)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more


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
    if built is not None and not has_lock and all(source.manifest is None for source in config.sources):
        return built.inventory
    return inventory_of(config, allow_code=allow_code)
