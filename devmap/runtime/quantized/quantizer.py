"""A model on meta prepared for quantised weights by Transformers' own quantizer."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from devmap.errors import LoadError
from devmap.inventory.quantization import LOADED_METHODS, WHOLE_METHODS
from devmap.runtime.quantized.bitsandbytes import FourBit, Int8
from devmap.runtime.quantized.torchao import Subclass, settings_in
from devmap.runtime.storage.files import read_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from devmap.inventory.model import Inventory
    from devmap.inventory.quantization import Quantization
    from devmap.inventory.stored.checkpoint import Checkpoint, StoredTensor
    from devmap.runtime.storage.packing import PackedParameter

__all__ = ["PACKAGES", "Quantised", "prepare_quantised", "quantizer_of", "quiet", "reason_of"]


@dataclass(frozen=True)
class Quantised:
    """A module whose quantised weights have the classes that run them, all still on meta."""

    quantizer: Any
    """Transformers' `HfQuantizer`."""
    packings: Mapping[str, PackedParameter]
    """How the parts of quantised parameters make them, by the parameters' names."""

    def finish(self, model: nn.Module) -> None:
        """Let the quantizer do what it does after all weights have arrived."""
        model.hf_quantizer = self.quantizer
        self.quantizer.postprocess_model(model)


def prepare_quantised(
    model: nn.Module, checkpoint: Checkpoint, inventory: Inventory, quantization: Quantization
) -> Quantised:
    """Replace the modules whose weights are quantised by those that run them, as `from_pretrained` does.

    `inventory` describes the checkpoint, with the parts of its weights.

    Raises:
        LoadError: when the method is not known to Transformers, lacks a package or cannot run here, or stores
            a part that no module takes.
    """
    if quantization.method not in LOADED_METHODS:
        # Before Transformers is asked: what it says depends on the packages and devices that are here. It
        # would make whole weights of FP8 and MXFP4 by itself, and compressed-tensors unpacks its own for
        # good at the first forward: a plan for packed weights would be short.
        raise LoadError(
            f"this checkpoint is quantised ({quantization.label}), which devmap.load does not run packed",
            help=_WHOLE if quantization.method in WHOLE_METHODS else _DEFAULT_HELP,
        )
    quantizer = quantizer_of(model, quantization)
    try:
        with quiet():
            quantizer.preprocess_model(
                model=model,
                dtype=model.dtype,
                device_map={},
                checkpoint_files=[str(file) for file in checkpoint.files],
                use_kernels=False,
            )
    except Exception as error:
        # Code of Transformers and of the method's library runs here; what it raises is the reason.
        raise LoadError(
            f"Transformers cannot prepare this model for {quantization.label}: {reason_of(error)}",
            help=_VERSIONS,
        ) from error
    model.eval()  # the new modules are in training mode
    metadata = getattr(quantizer, "metadata", None) or {}  # torchao's, which its quantizer has read
    packings = dict(_packings(model, checkpoint, inventory, metadata))
    _require_places(model, inventory, packings, quantization)
    return Quantised(quantizer, packings)


def quantizer_of(model: nn.Module, quantization: Quantization, *, dequantize: bool = False) -> Any:
    """Return Transformers' quantizer for a quantised checkpoint, with the environment checked.

    `dequantize` asks it for whole weights.

    Raises:
        LoadError: when the method is not known to Transformers, lacks a package or cannot run here.
    """
    quantizers = import_module("transformers.quantizers")
    try:
        with quiet():
            settings = _settings_of(model)
            if dequantize:
                given = settings if isinstance(settings, dict) else settings.to_dict()
                settings = {**given, "dequantize": True}
            quantizer = quantizers.AutoHfQuantizer.from_config(settings, pre_quantized=True)
            quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:
        # ImportError, ValueError and RuntimeError of some thirty methods, and what their libraries raise.
        raise LoadError(
            f"this checkpoint is quantised ({quantization.label}), which cannot run here: {reason_of(error)}",
            # A package that is here and refuses what it is given would not be helped by installing it.
            help=PACKAGES.get(quantization.method, _DEFAULT_HELP)
            if isinstance(error, ImportError)
            else _VERSIONS,
        ) from error
    return quantizer


_DEFAULT_HELP = "load a checkpoint of the model that is not quantised, or one of a method that runs here"
_VERSIONS = "compare the versions of transformers and of the method's package with those that saved it"
PACKAGES = {
    "bitsandbytes": "pip install 'torch-devmap[quantized]', which has bitsandbytes and accelerate",
    "torchao": "pip install 'torch-devmap[quantized]', which has torchao",
    "compressed-tensors": "pip install 'torch-devmap[quantized]', which has compressed-tensors",
    "gptq": "pip install gptqmodel optimum, on a machine with the GPU that their kernels need",
    "awq": "pip install gptqmodel, on a machine with the GPU that its kernels need",
    "hqq": "pip install hqq",
    "quanto": "pip install optimum-quanto",
    "aqlm": "pip install aqlm",
    "auto-round": "pip install auto-round",
}
"""What to install for a method, as Transformers asks for it."""


def _settings_of(model: nn.Module) -> Any:
    """Return the model's `quantization_config`, or that of its text model."""
    config: Any = model.config
    found = getattr(config, "quantization_config", None)
    return found or getattr(config.get_text_config(decoder=True), "quantization_config", None)


_WHOLE = "set model.dequantize: true, which loads its weights whole and plans their size"


def _packings(
    model: nn.Module, checkpoint: Checkpoint, inventory: Inventory, metadata: Mapping[str, str]
) -> Iterator[tuple[str, PackedParameter]]:
    """Find the parameters that have to be made over their parts; the others are plain tensors."""
    assert inventory.mapping is not None
    pieces = inventory.mapping.pieces
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")  # noqa: SLF001 - None where there is none
        stored = {
            tensor.name: pieces[tensor.name][0].stored
            for tensor in inventory.own_tensors.get(path, ())
            if tensor.kind == "part" and tensor.name in pieces
        }
        if weight is None or not stored:
            continue
        name = f"{path}.weight" if path else "weight"
        packing = _packing(module, name, stored, checkpoint, inventory, metadata)
        if packing is not None:
            yield name, packing


def _packing(
    module: nn.Module,
    name: str,
    stored: Mapping[str, str],
    checkpoint: Checkpoint,
    inventory: Inventory,
    metadata: Mapping[str, str],
) -> PackedParameter | None:
    """Return how the parts of one weight make it; `stored` are their names in the checkpoint."""
    assert inventory.mapping is not None
    kind = type(module._parameters["weight"]).__name__  # noqa: SLF001 - as above
    prefix = name.removesuffix("weight")
    if kind == "Params4bit" and name in inventory.mapping.pieces:
        whole = inventory.mapping.pieces[name][0].stored
        keys = {each: key.removeprefix(f"{whole}.") for each, key in stored.items()}
        settings = next((stored[each] for each, key in keys.items() if key.startswith(_SETTINGS)), None)
        if settings is None:
            return None
        tensors = {each: key for each, key in keys.items() if not key.startswith(_SETTINGS)}
        found = _json(checkpoint.tensors[settings])
        return FourBit(module, (name, *tensors), ("", *tensors.values()), found)
    if kind == "Int8Params" and f"{prefix}SCB" in stored:
        return Int8(module, (name, f"{prefix}SCB"))
    flattened = {each: key for each, key in stored.items() if each.startswith(f"{prefix}_weight_")}
    if not flattened:
        return None
    outer = next(iter(flattened.values())).rpartition(".")[0]
    settings_of = settings_in(metadata, f"{outer}.weight")
    if settings_of is None:
        return None
    inside = {key: f"{prefix}_weight_{key}" for key in settings_of["_tensor_data_names"]}
    return Subclass(tuple(inside.values()), tuple(inside), settings_of)


_SETTINGS = "quant_state."


def _json(stored: StoredTensor) -> Mapping[str, Any]:
    """Return the settings that bitsandbytes stores as the bytes of a tensor."""
    content = read_once(stored.file, stored.offset, stored.nbytes)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"'{stored.name}' does not hold the settings of bitsandbytes: {error}") from error
    if not isinstance(found, dict):
        raise LoadError(f"'{stored.name}' does not hold the settings of bitsandbytes")
    return found


def _require_places(
    model: nn.Module,
    inventory: Inventory,
    packings: Mapping[str, PackedParameter],
    quantization: Quantization,
) -> None:
    """Refuse a checkpoint with parts that no module of the prepared model takes."""
    there = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    there.update(name for packing in packings.values() for name in packing.names)
    modules = {name.rpartition(".")[0] for name in packings}
    lost = [
        name
        for name, tensor in inventory.tensors.items()
        if tensor.kind == "part" and name not in there and tensor.module not in modules
    ]
    if lost:
        raise LoadError(
            f"this checkpoint is quantised ({quantization.label}), and Transformers' module has no place for "
            f"'{lost[0]}'{f' and {len(lost) - 1:,} more' if len(lost) > 1 else ''}",
            help=_DEFAULT_HELP,
        )


def reason_of(error: Exception) -> str:
    """Return the first line of what an error says, or its class."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' own warnings back: what is not done here is raised."""
    logger = logging.getLogger("transformers")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
