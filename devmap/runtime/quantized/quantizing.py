"""Weights that are quantised while they are loaded, by the library's own code, one at a time.

Transformers' quantizer prepares the modules on meta, as `from_pretrained` has it do, and its operation
converts each weight when its parts are brought home: the whole weight is read into host memory, the library
makes the parts, the weight is let go of. Nothing here computes a number.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from devmap.config.values.strategy import QuantizationMethod
from devmap.devices.host_memory import return_freed
from devmap.errors import LoadError
from devmap.inventory.quantizing import (
    BLOCK,
    NESTED_BLOCK,
    STRETCH,
    bytes_at_once,
    is_made_in_stretches,
    label_of,
    with_parts,
)
from devmap.runtime.preflight import unreadable
from devmap.runtime.quantized.bitsandbytes import FourBit, Int8
from devmap.runtime.quantized.quantizer import PACKAGES, Quantised, quiet, reason_of
from devmap.runtime.quantized.torchao import Subclass
from devmap.runtime.storage.homes import read_weight
from devmap.runtime.storage.module_scan import scan_module
from devmap.runtime.storage.readers import Readers
from devmap.runtime.storage.weights import Weights, torch_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from devmap.config.model.quantization_settings import QuantizationSettings
    from devmap.inventory.model import Inventory
    from devmap.runtime.storage.packing import PackedParameter
    from devmap.runtime.storage.weights import Weight

__all__ = ["Quantising", "prepare_quantising"]

_KEPT_BYTES = 8 << 20
"""Of parts that are made and not asked for yet. A block's slab takes those of odd sizes last."""
_SCRATCH_BYTES = 1 << 20


@dataclass(frozen=True)
class Quantising:
    """A module on meta that is prepared, and what makes the parts of its weights."""

    inventory: Inventory
    """The model as it runs."""
    quantised: Quantised
    makers: Mapping[str, Callable[[], torch.Tensor]]
    """What makes each part, by name, in host memory."""
    largest: str
    """The weight whose conversion takes the most host memory."""
    bytes_at_once: int
    """What that is."""


def prepare_quantising(
    model: nn.Module, whole: Inventory, settings: QuantizationSettings, *, dtype: str | None
) -> Quantising:
    """Replace the modules whose weights will be quantised by those that run them, as `from_pretrained` does.

    `whole` is the inventory of the model as it is stored, with its checkpoint and mapping; `dtype` the run
    dtype of the config. Nothing of a weight is read.

    Raises:
        LoadError: when the library is not here, does not run here, or a weight cannot be read.
        QuantizationError: when nothing of the model can be quantised so.
    """
    quantizer = _quantizer(settings)
    scanned = scan_module(model)
    weights = Weights(scanned, whole, dtype)
    before = dict(scanned.modules)
    try:
        with quiet():
            quantizer.preprocess_model(
                model=model, dtype=model.dtype, device_map={}, checkpoint_files=None, use_kernels=False
            )
    except Exception as error:
        # Code of Transformers and of the method's library runs here; what it raises is the reason.
        raise LoadError(
            f"Transformers cannot prepare this model for {label_of(settings)}: {reason_of(error)}",
            help="leave model.quantization out, or name the modules that stay whole",
        ) from error
    model.eval()  # the new modules are in training mode
    names = [name for name, _ in model.named_parameters() if quantizer.param_needs_quantization(model, name)]
    inventory = with_parts(whole, frozenset(names), settings, dtype=dtype)
    problems = unreadable(weights[name] for name in names)
    if problems:
        raise LoadError(
            f"the weights cannot be quantised: {len(problems)} problem{'s' * (len(problems) > 1)}",
            problems=problems,
            help="look at the checkpoint with `devmap inspect`",
        )
    convert = _Converter(model, quantizer, inventory, STRETCH if is_made_in_stretches(settings) else None)
    packings: dict[str, PackedParameter] = {}
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name in names:
        path = name.rpartition(".")[0]
        module = model.get_submodule(path)
        if module is not before[path]:
            _keep_bias(module, before[path])
        packing = packings[name] = _packing(module, name, weights[name], settings, convert)
        makers |= {part: partial(convert.part, part, weights[name], packing) for part in packing.names}
    largest = max(names, key=lambda name: math.prod(weights[name].shape))
    return Quantising(
        inventory,
        Quantised(quantizer, packings),
        makers,
        largest,
        bytes_at_once(math.prod(weights[largest].shape), settings),
    )


def _quantizer(settings: QuantizationSettings) -> Any:
    """Return Transformers' quantizer for whole weights, with the environment checked."""
    if settings.chosen is QuantizationMethod.INT4:
        raise LoadError(
            "torchao packs weights into int4 on accelerators alone, and devmap.load quantises on the CPU",
            help="use nf4 or fp4, or load a checkpoint that is quantised already",
        )
    library = settings.chosen.library
    try:
        with quiet():
            quantizers: Any = import_module("transformers.quantizers")
            quantizer = quantizers.AutoHfQuantizer.from_config(_config_of(settings), pre_quantized=False)
            quantizer.validate_environment(device_map=None, weights_only=True)
    except Exception as error:
        # What the library raises when it is asked for is the reason.
        raise LoadError(
            f"weights cannot be quantised to {settings.chosen} here: {reason_of(error)}",
            help=PACKAGES[library]
            if isinstance(error, ImportError)
            else f"compare the versions of transformers and {library}",
        ) from error
    return quantizer


def _config_of(settings: QuantizationSettings) -> Any:
    """Return the settings as Transformers' config class has them."""
    transformers: Any = import_module("transformers")
    method = settings.chosen
    if method.library == "torchao":
        torchao: Any = import_module("torchao.quantization")
        kind = settings.quant_type.default.arguments if settings.quant_type is not None else None
        return transformers.TorchAoConfig(
            torchao.Float8WeightOnlyConfig(set_inductor_config=kind is None or kind.set_inductor_config),
            modules_to_not_convert=settings.modules_to_not_convert,
        )
    is_int8 = method is QuantizationMethod.INT8
    return transformers.BitsAndBytesConfig(
        load_in_8bit=is_int8,
        load_in_4bit=not is_int8,
        llm_int8_threshold=float(settings.llm_int8_threshold),
        llm_int8_skip_modules=settings.llm_int8_skip_modules,
        bnb_4bit_compute_dtype=settings.bnb_4bit_compute_dtype,
        bnb_4bit_quant_type="fp4" if is_int8 else method.value,
        bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
        bnb_4bit_quant_storage=settings.bnb_4bit_quant_storage,
    )


def _keep_bias(module: nn.Module, before: nn.Module) -> None:
    """Give a new module the bias of the one in whose place it stands, with its dtype and its value if any."""
    bias = before._parameters.get("bias")  # noqa: SLF001 - None where there is none
    if bias is not None:
        module._parameters["bias"] = bias  # noqa: SLF001 - as it was, on meta or real
        bias.requires_grad_(False)


# How the parts of a weight make it


def _packing(
    module: nn.Module, name: str, whole: Weight, settings: QuantizationSettings, convert: _Converter
) -> PackedParameter:
    """Return how the parts of one weight make its parameter."""
    prefix = name.removesuffix("weight")
    if settings.chosen is QuantizationMethod.INT8:
        return Int8(module, (name, f"{prefix}SCB"))
    if settings.chosen.library == "torchao":
        stored = _settings_in_torchao(convert.sample(name, whole))
        keys = tuple(stored["_tensor_data_names"])
        return Subclass(tuple(f"{prefix}_weight_{key}" for key in keys), keys, stored)
    keys = ("absmax", "quant_map")
    described: dict[str, Any] = {
        "quant_type": settings.chosen.value,
        "blocksize": BLOCK,
        "dtype": str(whole.dtype).removeprefix("torch."),
        "shape": tuple(module.get_parameter("weight").shape),
    }
    if settings.bnb_4bit_use_double_quant:
        keys = (*keys, "nested_absmax", "nested_quant_map", "nested_offset")
        described |= {"nested_blocksize": NESTED_BLOCK, "nested_dtype": "float32"}
    return FourBit(module, (name, *(f"{name}_{key}" for key in keys)), ("", *keys), described)


def _settings_in_torchao(parameter: torch.Tensor) -> dict[str, Any]:
    """Return the class of a weight of torchao's, with what is no tensor, as its files have them."""
    support: Any = import_module("torchao.prototype.safetensors.safetensors_support")
    _, metadata = support.flatten_tensor_state_dict({"x.weight": parameter.data})
    found: dict[str, Any] = json.loads(metadata["x.weight"])
    return found


class _Converter:
    """Makes the parts of weights; a class because parts of one weight are asked for one after another."""

    def __init__(self, model: nn.Module, quantizer: Any, inventory: Inventory, stretch: int | None) -> None:
        """`stretch` are the numbers that are converted at a time; None for all of a weight."""
        self._stretch = stretch
        self._model = model
        self._quantizer = quantizer
        self._inventory = inventory
        self._ready: dict[str, torch.Tensor] = {}
        """Parts that are made and not asked for yet, the oldest first."""

    def part(self, name: str, whole: Weight, packing: PackedParameter) -> torch.Tensor:
        """Return one part of a weight, which is made anew unless it was made beside another part.

        Raises:
            LoadError: when the library fails, or makes something else than was planned.
            StreamError: when the weight cannot be read.
        """
        if name not in self._ready:
            self._ready |= self._parts(whole, packing)
        found = self._ready.pop(name)
        while sum(part.nbytes for part in self._ready.values()) > _KEPT_BYTES:
            del self._ready[next(iter(self._ready))]
        return found

    def _parts(self, whole: Weight, packing: PackedParameter) -> dict[str, torch.Tensor]:
        value, made = _value(whole), dict[str, torch.Tensor]()
        filled = dict.fromkeys(packing.names, 0)
        for stretch in self._stretches(whole.name, value):
            parameter = self._converted(whole.name, stretch)
            for name, part in packing.parts(parameter).items():
                planned = self._inventory.tensors[name]
                dtype, is_whole = torch_dtype(planned.dtype), tuple(part.shape) == planned.shape
                end = filled[name] + (part.shape[0] if part.dim() else 1)
                if part.dtype != dtype or not (
                    is_whole or (tuple(part.shape[1:]) == planned.shape[1:] and end <= planned.shape[0])
                ):
                    raise LoadError(
                        f"'{name}' was planned as {planned.dtype}{list(planned.shape)}, and the library made "
                        f"{part.dtype}{list(part.shape)} of it",
                        help="report it with the versions of bitsandbytes or torchao",
                    )
                if is_whole:  # a table, or all of it
                    made[name] = part.detach().contiguous()
                    continue
                if name not in made:
                    made[name] = torch.empty(planned.shape, dtype=dtype)
                made[name][filled[name] : end] = part
                filled[name] = end
            packing.detach()
            del parameter
        return_freed()
        return made

    def _stretches(self, name: str, value: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield runs of a weight's outputs, in order, each of whole blocks of numbers with one scale.

        Outputs are rows; in GPT-2's `Conv1D`, which the operation turns round, they are columns.
        """
        module = self._model.get_submodule(name.rpartition(".")[0])
        turned = getattr(getattr(module, "source_cls", None), "__name__", "") == "Conv1D"
        outputs, inputs = (value.shape[1], value.shape[0]) if turned else (value.shape[0], value.shape[1])
        step = outputs
        if self._stretch is not None:
            whole_blocks = BLOCK // math.gcd(BLOCK, inputs)
            step = max(whole_blocks, self._stretch // inputs // whole_blocks * whole_blocks)
        for start in range(0, outputs, step):
            yield value.narrow(1 if turned else 0, start, min(step, outputs - start))

    def sample(self, name: str, whole: Weight) -> torch.Tensor:
        """Return what the library makes of one row of such a weight."""
        made: torch.Tensor = self._converted(name, torch.ones(1, whole.shape[1], dtype=whole.dtype))
        return made

    def _converted(self, name: str, value: torch.Tensor) -> Any:
        """Return what Transformers' operation makes of a weight; the model is left as it was."""
        path, _, key = name.rpartition(".")
        table = self._model.get_submodule(path)._parameters  # noqa: SLF001 - torchao's operation writes there
        before = table[key]
        operation = self._quantizer.get_quantize_ops()
        try:
            with torch.no_grad():
                made = operation.convert(
                    {name: [value]}, model=self._model, full_layer_name=name, missing_keys=set()
                )
            return made[name] if name in made else table[key]
        except Exception as error:
            # The library's code runs; what it raises is the reason.
            raise LoadError(
                f"'{name}' could not be quantised: {type(error).__name__}: {reason_of(error)}",
                help="name its module among those that stay whole, or leave model.quantization out",
            ) from error
        finally:
            table[key] = before


def _value(whole: Weight) -> torch.Tensor:
    """Return a whole weight at its run dtype, in host memory of its own."""
    if whole.has_value:
        return whole.value()
    readers = Readers(scratch_bytes=_SCRATCH_BYTES)
    try:
        return read_weight(readers, whole)
    finally:
        readers.close()
