"""Weights that are quantised while they are loaded: what the running model holds in their places.

A transform of an inventory of whole weights, without torch. Which weights are converted is the rule of
Transformers' quantizers; what is made of each is the layout of the library whose arithmetic it is, as read
from bitsandbytes 0.50 and torchao 0.18 and held against both in the tests.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import TYPE_CHECKING

from devmap.config.values.strategy import QuantizationMethod
from devmap.errors import QuantizationError
from devmap.inventory.dtypes import element_bits, run_dtype
from devmap.inventory.model import Tensor
from devmap.inventory.quantization import quantization_of
from devmap.inventory.table.libraries import library_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from devmap.config.model.quantization_settings import QuantizationSettings
    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.checkpoint import Checkpoint

__all__ = [
    "BLOCK",
    "NESTED_BLOCK",
    "STRETCH",
    "bytes_at_once",
    "is_made_in_stretches",
    "label_of",
    "largest_conversion",
    "parts_of_weight",
    "quantized",
    "require_whole",
    "with_parts",
]

BLOCK = 64
"""Neighbouring numbers of a 4-bit weight that share a scale."""
NESTED_BLOCK = 256
"""Scales that share one of their own, where they are quantised too."""


def quantized(inventory: Inventory, settings: QuantizationSettings, *, dtype: str | None = None) -> Inventory:
    """Return the inventory of the model as it runs when its linear layers are quantised while it is loaded.

    `dtype` is the config's run dtype, which weights have before they are quantised. Linear in the tensors.

    Raises:
        QuantizationError: when the weights are quantised already, or nothing here can be quantised so.
    """
    if inventory.checkpoint is not None:
        require_whole(inventory.checkpoint)
    if any(tensor.kind == "part" for tensor in inventory.tensors.values()):  # of a manifest, for example
        named = inventory.architecture.figures.get("quantization") if inventory.architecture else None
        raise QuantizationError(
            f"the weights are quantised already{f' ({named})' if named else ''}",
            help="leave model.quantization out, or name a model with whole weights",
        )
    return with_parts(inventory, _weights_to_convert(inventory, settings), settings, dtype=dtype)


def require_whole(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint stores whole weights of a model that Transformers' quantizers know.

    Raises:
        QuantizationError: when it does not.
    """
    library, stored = library_of(checkpoint.config), quantization_of(checkpoint.config)
    if stored is not None:
        raise QuantizationError(
            f"the checkpoint is quantised already ({stored.label})",
            help="leave model.quantization out, or name a checkpoint with whole weights",
        )
    if library != "transformers":
        raise QuantizationError(
            f"a model of {library} is not quantised while it is loaded",
            help="leave model.quantization out: Transformers' quantizers know its own models alone",
        )


def with_parts(
    inventory: Inventory,
    weights: Collection[str],
    settings: QuantizationSettings,
    *,
    dtype: str | None = None,
) -> Inventory:
    """Return the inventory with the parts of these weights in their places.

    Raises:
        QuantizationError: where one of them cannot be quantised so, or there is none.
    """
    if not weights:
        raise QuantizationError(
            f"this model has no linear layer that {settings.chosen} would quantise",
            help="leave model.quantization out, or name fewer modules to be skipped",
        )
    tied = next((name for name in weights if name in inventory.owner), None)
    if tied is not None:
        module = tied.removesuffix(".weight")
        raise QuantizationError(
            f"'{module}' shares its weight with another module, so that it cannot be quantised alone",
            help=f"name '{module}' among {_skip_key(settings)}",
        )
    tensors: dict[str, Tensor] = {}
    for name, tensor in inventory.tensors.items():
        if name not in weights:
            tensors[name] = tensor
            continue
        whole = tensor._replace(dtype=run_dtype(tensor.dtype, dtype, kind=tensor.kind))
        if inventory.modules[tensor.module] == "Conv1D":  # stored with its inputs first
            whole = whole._replace(shape=whole.shape[::-1])
        tensors |= {part.name: part for part in parts_of_weight(whole, settings)}
    architecture, mapping = inventory.architecture, inventory.mapping
    if architecture is not None:
        figures = {
            **architecture.figures,
            "quantization": f"{label_of(settings)}, quantised while it is loaded",
            "quantization_method": settings.chosen.library,
        }
        architecture = dataclasses.replace(architecture, figures=figures)
    if mapping is not None:  # no piece of a file is a part
        pieces = {name: each for name, each in mapping.pieces.items() if name not in weights}
        mapping = dataclasses.replace(mapping, pieces=pieces)
    return dataclasses.replace(
        inventory, tensors=tensors, architecture=architecture, mapping=mapping, quantized_by=settings
    )


def label_of(settings: QuantizationSettings) -> str:
    """Return the method for people.

    >>> from devmap.config.model.quantization_settings import QuantizationSettings
    >>> label_of(QuantizationSettings(method="nf4", bnb_4bit_use_double_quant=True))
    '4-bit bitsandbytes nf4, double quantised'
    """
    method = settings.chosen
    doubled = ", double quantised" if settings.bnb_4bit_use_double_quant and _is_packed(method) else ""
    groups = f", groups of {settings.group_size}" if method is QuantizationMethod.INT4 else ""
    bits = 8 if method in {QuantizationMethod.INT8, QuantizationMethod.FP8} else 4
    return f"{bits}-bit {method.library} {method}{doubled}{groups}"


def _is_packed(method: QuantizationMethod) -> bool:
    """Return whether bitsandbytes packs two numbers into a byte."""
    return method in {QuantizationMethod.NF4, QuantizationMethod.FP4}


def _skip_key(settings: QuantizationSettings) -> str:
    return (
        "model.quantization.llm_int8_skip_modules"
        if settings.chosen.library == "bitsandbytes"
        else "model.quantization.modules_to_not_convert"
    )


# Which weights


def _weights_to_convert(inventory: Inventory, settings: QuantizationSettings) -> frozenset[str]:
    """Return the names of the weights that the library's quantizer converts.

    Those of plain linear layers (GPT-2's `Conv1D` too, by bitsandbytes), but for the modules that are named
    to stay whole, or, where none is named, for the head and whatever is tied. After
    `transformers.quantizers.base.get_keys_to_not_convert` and `should_convert_module`.
    """
    by_bitsandbytes = settings.chosen.library == "bitsandbytes"
    classes = {"Linear", "Conv1D"} if by_bitsandbytes else _LINEAR_CLASSES
    stays = _stays_whole(inventory, settings)
    found = []
    for path, class_name in inventory.modules.items():
        name = f"{path}.weight" if path else "weight"
        # bitsandbytes' quantizer asks by the module's path, torchao's by the weight's
        if class_name not in classes or name not in inventory.tensors:
            continue
        if stays(path if by_bitsandbytes else name):
            continue
        shape = inventory.tensors[name].shape
        if len(shape) != 2 or not math.prod(shape):
            continue
        # torchao leaves rows whole that its groups do not divide
        if settings.chosen is QuantizationMethod.INT4 and shape[1] % settings.group_size:
            continue
        found.append(name)
    return frozenset(found)


_LINEAR_CLASSES = frozenset(
    [
        "Linear",
        "NonDynamicallyQuantizableLinear",
        "FalconLinear",
        "DeepseekV4GroupedLinear",
        "Llama4Router",
        "PhimoeTopKRouter",
    ]
)
"""torch's linear layer and the classes that inherit from it, which torchao's quantizer asks for; that of
bitsandbytes takes the class itself alone."""

_HEADS = (
    (re.compile(r"CohereAsr"), ("proj_out",)),
    (re.compile(r"GitFor"), ("output",)),
    (re.compile(r"Musicgen"), ("lm_heads", "decoder.lm_heads")),
    (re.compile(r"RemBert"), ("cls.predictions.decoder",)),
    (re.compile(r"ModernBertDecoder"), ("decoder",)),
)
"""Where the classes of Transformers 5.23 that begin so have their head: `get_output_embeddings`, where it is
neither called `lm_head`, nor tied, nor the last module."""

_KEPT_WIDE = (
    (re.compile(r"(?:U?M)?T5(?!Gemma)|Udop|Pop2Piano"), ("wo",)),
    (re.compile(r"Blip2"), ("qformer",)),
    (re.compile(r"GlmMoeDsa|DeepseekV32|AXK2|MistralLarge4"), ("indexer.weights_proj",)),
    (re.compile(r"LongcatFlash"), ("classifier.weight",)),
    (
        re.compile(r"DeepseekV4"),
        tuple(
            f"self_attn.compressor.{name}"
            for name in (
                "kv_proj",
                "gate_proj",
                "indexer.kv_proj",
                "indexer.gate_proj",
                "indexer.scorer.weights_proj",
            )
        ),
    ),
)
"""What the classes of Transformers 5.23 that begin so keep in wide dtypes, and so from being quantised:
`_keep_in_fp32_modules`, as far as it names linear layers."""


def _stays_whole(inventory: Inventory, settings: QuantizationSettings) -> _Named:
    named = settings.skipped
    names = list(_kept_by_default(inventory)) if named is None else list(named)
    classes = set(inventory.modules.values())
    for begins, kept in _KEPT_WIDE:
        if any(begins.match(class_name) for class_name in classes):
            names += kept
    return _Named(names)


def _kept_by_default(inventory: Inventory) -> Iterator[str]:
    """Yield the head, what is tied, and the last parameter, as Transformers names them."""
    yield from _head(inventory)
    for name in inventory.owner:
        yield name.removesuffix(".weight")
    owner = inventory.owner
    last = [
        name
        for name, tensor in inventory.tensors.items()
        if tensor.kind == "parameter" and owner.get(name, name) == name
    ]
    if last:
        yield last[-1].removesuffix(".weight")


def _head(inventory: Inventory) -> Iterator[str]:
    """Yield where a language model's head is, which may be none: a model of sounds has no embeddings."""
    modules, root = inventory.modules, inventory.modules.get("", "")
    for begins, names in _HEADS:
        if begins.match(root):
            yield from names
            return
    if root.endswith("ForCTC") or "lm_head" not in modules:
        return
    inner = [name for name in ("lm_head.decoder", "lm_head.out_proj") if name in modules]
    yield from inner or ["lm_head"]


class _Named:
    """Whether a name is one of some: it begins with one, up to a dot, or ends with one.

    Transformers takes each for a regular expression, in which a dot stands for any character. Names alone are
    accepted here (a config of a stranger is matched), and a dot is a dot.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._begins = frozenset(names)
        self._ends = tuple(names)

    def __call__(self, name: str) -> bool:
        if name.endswith(self._ends):
            return True
        end = len(name)
        while end > 0:
            if name[:end] in self._begins:
                return True
            end = name.rfind(".", 0, end)
        return False


# What is made of each


def parts_of_weight(whole: Tensor, settings: QuantizationSettings) -> Iterator[Tensor]:
    """Yield what stands in the place of a whole weight, whose shape is rows of outputs and columns of inputs.

    Raises:
        QuantizationError: when the library does not take its dtype, or cannot store it so.
    """
    method, (rows, columns) = settings.chosen, whole.shape
    if whole.dtype not in {"float16", "bfloat16", "float32"}:
        raise QuantizationError(
            f"'{whole.name}' is {whole.dtype}, which {method} does not quantise",
            help="set model.dtype to bfloat16, float16 or float32"
            if whole.dtype == "float64"
            else "leave model.quantization out",
        )
    prefix = whole.name.removesuffix("weight")
    if _is_packed(method):
        yield from _packed_parts(whole, settings)
    elif method is QuantizationMethod.INT8:
        yield Tensor(whole.name, whole.shape, "int8", "part")
        yield Tensor(f"{prefix}SCB", (rows,), "float32", "part")
    elif method is QuantizationMethod.FP8:
        yield Tensor(f"{prefix}_weight_qdata", whole.shape, "float8_e4m3fn", "part")
        yield Tensor(f"{prefix}_weight_scale", (rows, 1), "float32", "part")
    else:
        groups = columns // settings.group_size
        yield Tensor(f"{prefix}_weight_qdata", (rows, columns // 2), "int8", "part")
        yield Tensor(f"{prefix}_weight_scale", (groups, rows), whole.dtype, "part")
        yield Tensor(f"{prefix}_weight_zero_point", (groups, rows), whole.dtype, "part")


def _packed_parts(whole: Tensor, settings: QuantizationSettings) -> Iterator[Tensor]:
    count = math.prod(whole.shape)
    nbytes, blocks = -(-count // 2), -(-count // BLOCK)
    storage = settings.bnb_4bit_quant_storage or "uint8"
    width = element_bits(storage) // 8
    if nbytes % width:
        raise QuantizationError(
            f"'{whole.name}' takes {nbytes:,} bytes in 4 bits, which {storage} does not divide",
            help="leave model.quantization.bnb_4bit_quant_storage out",
        )
    yield Tensor(whole.name, (nbytes // width, 1), storage, "part")
    doubled = settings.bnb_4bit_use_double_quant
    yield Tensor(f"{whole.name}_absmax", (blocks,), "uint8" if doubled else "float32", "part")
    yield Tensor(f"{whole.name}_quant_map", (16,), "float32", "part")
    if doubled:
        yield Tensor(f"{whole.name}_nested_absmax", (-(-blocks // NESTED_BLOCK),), "float32", "part")
        yield Tensor(f"{whole.name}_nested_quant_map", (256,), "float32", "part")
        yield Tensor(f"{whole.name}_nested_offset", (), "float32", "part")


# What making them takes

STRETCH = 4 << 20
"""Numbers of a weight that are converted at a time, where that gives the same as all of them at once."""

_BYTES_A_NUMBER = {
    QuantizationMethod.NF4: 17,
    QuantizationMethod.FP4: 31,
    QuantizationMethod.INT8: 15,
    QuantizationMethod.FP8: 16,
}
"""Bytes of host memory for each number that is converted at a time: the weight, what the library's kernels
for the CPU take, and the parts. Measured for bitsandbytes 0.50 and torchao 0.18, with weights of 8,192 x
8,192 in each of the three dtypes; the largest, rounded up."""
_BYTES_A_WAITING_NUMBER = 6
"""The same for those that wait or are done: up to four of the weight, and its parts."""
_BESIDE_BYTES = 24 << 20
"""What conversions take whatever the weight's size: parts that wait, the readers' scratch memory, and what
the C library keeps between tensors of a few megabytes."""


def is_made_in_stretches(settings: QuantizationSettings) -> bool:
    """Return whether rows of a weight can be quantised for themselves.

    Where scales are quantised too, their mean over the whole weight is taken first.
    """
    return not (settings.bnb_4bit_use_double_quant and _is_packed(settings.chosen))


def bytes_at_once(numbers: int, settings: QuantizationSettings) -> int:
    """Return the bytes of host memory that it takes to quantise a weight of so many numbers.

    0 for a method that the CPU does not convert to.
    """
    each = _BYTES_A_NUMBER.get(settings.chosen)
    if each is None:
        return 0
    if not is_made_in_stretches(settings):
        return numbers * each + _BESIDE_BYTES
    return numbers * _BYTES_A_WAITING_NUMBER + min(numbers, STRETCH) * each + _BESIDE_BYTES


def largest_conversion(inventory: Inventory) -> tuple[str, int]:
    """Return the module whose weight takes the most host memory to be quantised, and how many bytes.

    No bytes where nothing is quantised while it is loaded.
    """
    settings = inventory.quantized_by
    nbytes: dict[str, int] = {}
    for tensor in inventory.tensors.values() if settings is not None else ():
        if tensor.kind == "part":
            # Packed numbers or integers have the most bytes of a weight's parts.
            nbytes[tensor.module] = max(nbytes.get(tensor.module, 0), tensor.nbytes)
    if settings is None or not nbytes:
        return "", 0
    module = max(nbytes, key=nbytes.__getitem__)
    return module, bytes_at_once(nbytes[module] * (2 if _is_packed(settings.chosen) else 1), settings)
