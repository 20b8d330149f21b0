"""Quantised checkpoints from their headers.

Which stored tensors make up a weight, and how the method is called.

A quantised weight is stored in parts: packed integers, scales, zero points, tables. The running model holds
these parts, not the weight, so they are what a plan has to find room for. A reader that knows only weights
is given a stand-in for each (`split`), and its answer gets the parts in the stand-ins' places (`restore`).

The names are those that the methods' own code writes, as Transformers' quantizers read them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devmap.inventory.model import Inventory, Tensor
from devmap.inventory.stored.mapping import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.inventory.stored.checkpoint import Checkpoint
    from devmap.inventory.stored.header import StoredTensor

__all__ = [
    "KNOWN_METHODS",
    "LOADED_METHODS",
    "WHOLE_METHODS",
    "Parts",
    "Quantization",
    "as_whole",
    "quantization_of",
    "restore",
    "split",
    "with_whole_weights",
]


@dataclass(frozen=True)
class Quantization:
    """What `quantization_config` says, as far as people and plans use it."""

    method: str
    """Transformers' word: `gptq`, `bitsandbytes`, `compressed-tensors`."""
    label: str
    """For people: `4-bit GPTQ, groups of 128`."""
    bits: float | None = None
    kept: tuple[str, ...] = ()
    """Modules that the method leaves alone, as the config names them."""


_NAMES = {
    "gptq": "GPTQ",
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "fp8": "FP8",
    "fbgemm_fp8": "FBGEMM FP8",
    "mxfp4": "MXFP4",
    "modelopt": "ModelOpt",
    "compressed-tensors": "compressed-tensors",
    "torchao": "torchao",
    "quanto": "Quanto",
    "hqq": "HQQ",
    "aqlm": "AQLM",
    "eetq": "EETQ",
    "auto-round": "AutoRound",
    "bitnet": "BitNet",
    "higgs": "HIGGS",
    "spqr": "SpQR",
    "vptq": "VPTQ",
}
LOADED_METHODS = frozenset({"bitsandbytes", "torchao"})
"""What `devmap.load` runs packed."""
WHOLE_METHODS = frozenset({"fp8", "mxfp4", "compressed-tensors"})
"""What it loads whole, with `model.dequantize`."""
KNOWN_METHODS: frozenset[str] = frozenset(_NAMES)
"""What is named, and whose parts are known in the headers."""

_KEPT_KEYS = (
    "modules_to_not_convert",
    "llm_int8_skip_modules",
    "ignore",
    "ignored_layers",
    "exclude_modules",
    "skip_modules",
)


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """Return what a `config.json` says of quantisation; None where it says nothing.

    >>> config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    >>> quantization_of(config).label
    '4-bit GPTQ, groups of 128'
    """
    for holder in (config, config.get("text_config")):
        found = holder.get("quantization_config") if isinstance(holder, Mapping) else None
        if isinstance(found, Mapping):
            return _read(found)
    return None


def _read(found: Mapping[str, Any]) -> Quantization:
    method = str(found.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in found else "unknown"))
    bits, group, kind = _figures(method, found)
    name = _NAMES.get(method, method)
    width = f"{bits:g}-bit " if bits is not None and not name.startswith(("MXFP4", "FP8", "FBGEMM")) else ""
    groups = f", groups of {group}" if isinstance(group, int) and group > 0 else ""
    label = f"{width}{name}{f' {kind}' if kind else ''}{groups}"
    kept = next((found[key] for key in _KEPT_KEYS if isinstance(found.get(key), list | tuple)), ())
    return Quantization(method, label, bits, tuple(str(each) for each in kept))


Figures = tuple["float | None", object, str]
"""Bits of a weight, size of a group of weights with one scale, and the kind of numbers; what is not said is
None or empty."""


def _figures(method: str, found: Mapping[str, Any]) -> Figures:
    reader = _READERS.get(method)
    if reader is not None:
        return reader(found)
    bits = found.get("bits", found.get("w_bit"))
    return _number(bits), found.get("group_size", found.get("q_group_size")), ""


def _inside(found: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """Return the mapping that the keys lead to; an empty one where one of them leads nowhere."""
    for key in keys:
        deeper = found.get(key)
        found = deeper if isinstance(deeper, Mapping) else {}
    return found


def _bitsandbytes(found: Mapping[str, Any]) -> Figures:
    if not (found.get("load_in_4bit") or found.get("_load_in_4bit")):
        return 8, None, "int8"
    doubled = ", double quantised" if found.get("bnb_4bit_use_double_quant") else ""
    return 4, None, f"{found.get('bnb_4bit_quant_type') or 'fp4'}{doubled}"


def _compressed_tensors(found: Mapping[str, Any]) -> Figures:
    groups = _inside(found, "config_groups")
    weights = _inside(groups, next(iter(groups), ""), "weights")
    kind = str(found.get("format") or weights.get("type") or "")
    return _number(weights.get("num_bits")), weights.get("group_size"), kind


def _hqq(found: Mapping[str, Any]) -> Figures:
    weights = _inside(found, "quant_config", "weight_quant_params")
    return _number(weights.get("nbits")), weights.get("group_size"), ""


def _fp8(found: Mapping[str, Any]) -> Figures:
    block = found.get("weight_block_size")
    return 8, None, f"in blocks of {' x '.join(map(str, block))}" if isinstance(block, list) else ""


def _torchao(found: Mapping[str, Any]) -> Figures:
    """Torchao's config class is the kind: `Int4WeightOnlyConfig` with a group size among its fields."""
    chosen = _inside(found, "quant_type", "default")
    kind = str(chosen.get("_type") or found.get("quant_type") or "").removesuffix("Config")
    return None, _inside(chosen, "_data").get("group_size"), kind if kind.isidentifier() else ""


def _named(found: Mapping[str, Any]) -> Figures:
    return None, None, str(found.get("weights") or "")


_READERS: dict[str, Callable[[Mapping[str, Any]], Figures]] = {
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "hqq": _hqq,
    "aqlm": lambda found: (None, None, f"{found.get('num_codebooks')}x{found.get('nbits_per_codebook')}"),
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "mxfp4": lambda _: (4, None, ""),
    "modelopt": lambda found: (None, found.get("group_size"), str(found.get("quant_algo") or "")),
    "quanto": _named,
    "eetq": _named,
    "torchao": _torchao,
}
"""How the methods that do not say `bits` and `group_size` say it."""


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


_OF_A_WEIGHT = re.compile(
    r"\.(?:qweight|qzeros|scales|g_idx|SCB|weight_format|W_q|codes|codebooks|trellis|suh|svh"
    r"|weight_packed|weight_shape|weight_scale(?:_inv|_2)?|weight_scales|weight_zero_point|weight_g_idx"
    r"|weight_global_scale|weight_qdata|weight_zero|weight:.+"
    r"|input_scale|input_global_scale|input_zero_point|output_scale|k_scale|v_scale|activation_scale(?:_ub)?"
    r"|weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+|_data|_scale|_shift|_zeropoint|SCB))$"
)
"""What stands behind the path of a module, where its `weight` is what is quantised."""

_FLATTENED = re.compile(
    r"(?<=\.)_(?P<own>\w+?)_(?:qdata|qdata_and_metadata|packed_weights|sparse_metadata|scale|scale_and_zero"
    r"|zero_point|group_scale|group_zero|row_scale|per_tensor_scale|act_(?:pre_scale|per_tensor_scale|quant_scale"
    r"|quant_zero_point))$"
)
"""How torchao flattens a tensor of several parts: `q_proj._weight_qdata` is a part of `q_proj.weight`."""

_FLATTENED_NUMBERS = ("qdata", "qdata_and_metadata", "packed_weights")
"""The part that each such tensor has; without it the name is a parameter's own."""

_OF_A_PARAMETER = re.compile(r"_(?:blocks|scales|scale_inv|scale|qdata|zeros)$")
"""What stands behind the name of a parameter that is not called `weight`: experts in one tensor."""


@dataclass(frozen=True)
class Parts:
    """The parts of quantised weights, by the stored name that the whole weight would have."""

    by_weight: Mapping[str, tuple[StoredTensor, ...]]
    stand_ins: frozenset[str]
    """The weights that are stored in parts alone, and that a reader was given a stand-in for."""


def split(checkpoint: Checkpoint, quantization: Quantization) -> tuple[Checkpoint, Parts]:
    """Return the checkpoint with whole weights in the place of parts, and the parts.

    Linear in the tensors.
    """
    held = checkpoint.tensors
    parts: dict[str, list[StoredTensor]] = {}
    plain: dict[str, StoredTensor] = {}
    for name, tensor in held.items():
        weight = _weight_of(name, held)
        if weight is None:
            plain[name] = tensor
        else:
            parts.setdefault(weight, []).append(tensor)
    stand_ins = [weight for weight in parts if weight not in held]
    for weight in stand_ins:
        largest = max(parts[weight], key=lambda each: each.nbytes)
        shape = _whole_shape(largest, parts[weight], weight, quantization)
        plain[weight] = dataclasses.replace(largest, name=weight, shape=shape, dtype="bfloat16", nbytes=0)
    found = Parts({weight: tuple(each) for weight, each in parts.items()}, frozenset(stand_ins))
    return dataclasses.replace(checkpoint, tensors=plain), found


def _weight_of(name: str, held: Mapping[str, StoredTensor]) -> str | None:
    """Return the whole weight's name, where this is the name of a part."""
    module, _, last = name.rpartition(".")
    if f"{module}.W_q" in held and last != "bias":  # HQQ stores its settings, too, each as a tensor
        return f"{module}.weight"
    match = _FLATTENED.search(name)
    if match is not None:
        stem = name[: match.end("own")]
        if any(f"{stem}_{numbers}" in held for numbers in _FLATTENED_NUMBERS):
            return f"{name[: match.start()]}{match['own']}"
    match = _OF_A_WEIGHT.search(name)
    if match is not None:
        return f"{name[: match.start()]}.weight"
    match = _OF_A_PARAMETER.search(name)
    if match is None:
        return None
    # `scale` may also end the name of a parameter of its own: a part has siblings, or the weight beside it.
    stem = name[: match.start()]
    others = (
        f"{stem}{ending}" for ending in ("", "_blocks", "_scales", "_qdata") if f"{stem}{ending}" != name
    )
    return stem if any(other in held for other in others) else None


def _whole_shape(
    largest: StoredTensor, parts: Sequence[StoredTensor], weight: str, quantization: Quantization
) -> tuple[int, ...]:
    """Return the shape of the weight that a packed part stands for, by its method's layout."""
    shape = largest.shape
    suffix = largest.name[len(weight.removesuffix(".weight")) :]
    word = _BITS_OF_WORD.get(largest.dtype)
    bits = quantization.bits

    def unpacked(count: int) -> int:
        return int(count * word // bits) if word and bits else count

    if suffix == ".qweight" and len(shape) == 2 and largest.dtype == "int32":
        # Scales have a column for each output in both layouts; GPTQ packs along the inputs, AWQ the outputs.
        scales = next((each for each in parts if each.name.endswith(".scales")), None)
        by_inputs = quantization.method != "awq" if scales is None else scales.shape[-1] == shape[1]
        return (shape[1], unpacked(shape[0])) if by_inputs else (unpacked(shape[1]), shape[0])
    if suffix == ".weight_packed" and len(shape) == 2:
        return shape[0], unpacked(shape[1])
    if suffix.endswith("_blocks") and len(shape) == 4:  # experts, rows, groups, bytes of two numbers
        return shape[0], shape[2] * shape[3] * 2, shape[1]
    return shape


_BITS_OF_WORD = {"int32": 32, "uint8": 8, "int8": 8}
"""Bits of the word that numbers are packed into."""


def restore(inventory: Inventory, checkpoint: Checkpoint, parts: Parts) -> Inventory:
    """Return the inventory with the parts in the places of the stand-ins, each at its stored size.

    A part lies where its weight lies: on the weight's module, under the part's own last name. Parts of
    weights that the model has in one tensor (experts) stand beside each other on that tensor's module. A
    weight that has the shape of its packing (two numbers a byte, in one column) is no mismatch: it counts as
    it is stored.
    """
    mapping = inventory.mapping
    assert mapping is not None
    packed = {
        each.name: each
        for each in mapping.mismatched
        if each.pieces and all(piece.stored in parts.by_weight for piece in each.pieces)
    }
    tensors: dict[str, Tensor] = {}
    pieces = dict(mapping.pieces) | {name: each.pieces for name, each in packed.items()}
    placed: set[str] = set()
    for name, tensor in inventory.tensors.items():
        weights = dict.fromkeys(piece.stored for piece in pieces.get(name, ()))
        found = [weight for weight in weights if weight in parts.by_weight]
        if found and all(weight in parts.stand_ins for weight in weights):
            del pieces[name]
        elif name in packed:
            dtype = checkpoint.tensors[found[0]].dtype
            tensors[name] = tensor._replace(shape=packed[name].found, dtype=dtype)
        else:
            tensors[name] = tensor
        for weight in found:
            if weight in placed:  # a tied name: the first has the parts
                continue
            placed.add(weight)
            for part in parts.by_weight[weight]:
                own = _name_of(part.name, weight, name, single=len(weights) == 1)
                tensors[own] = Tensor(own, part.shape, part.dtype, "part")
                pieces[own] = (Piece(part.name),)
    left = [part for weight, each in parts.by_weight.items() if weight not in placed for part in each]
    at_home = [part for part in left if part.name.rpartition(".")[0] in inventory.modules]
    for part in at_home:  # scales of the KV cache lie on the attention, which has no weight of its own
        tensors[part.name] = Tensor(part.name, part.shape, part.dtype, "part")
        pieces[part.name] = (Piece(part.name),)
    if at_home:
        tensors = _in_module_order(tensors, inventory.modules)
    lost = [part.name for part in left if part.name not in pieces]
    unmapped = (*(name for name in mapping.unmapped if name not in parts.stand_ins), *lost)
    mismatched = tuple(each for each in mapping.mismatched if each.name not in packed)
    return dataclasses.replace(
        inventory,
        tensors=tensors,
        ties=tuple(_left(inventory.ties, tensors)),
        checkpoint=checkpoint,
        mapping=dataclasses.replace(mapping, pieces=pieces, unmapped=unmapped, mismatched=mismatched),
    )


def with_whole_weights(
    checkpoint: Checkpoint, quantization: Quantization
) -> tuple[Checkpoint, frozenset[str]]:
    """Return the checkpoint as if it stored its weights whole, and the names of those that it does not.

    They have the dtype that `config.json` names for the model, else bfloat16. Linear in the tensors.
    """
    whole, parts = split(checkpoint, quantization)
    dtype = _model_dtype(checkpoint.config)
    tensors = {
        name: dataclasses.replace(tensor, dtype=dtype, nbytes=0) if name in parts.by_weight else tensor
        for name, tensor in whole.tensors.items()
    }
    return dataclasses.replace(whole, tensors=tensors), frozenset(parts.by_weight)


def _model_dtype(config: Mapping[str, Any]) -> str:
    for holder in (config, config.get("text_config")):
        found = holder.get("dtype", holder.get("torch_dtype")) if isinstance(holder, Mapping) else None
        if isinstance(found, str) and found not in {"auto", ""}:
            return found.removeprefix("torch.")
    return "bfloat16"


def as_whole(
    inventory: Inventory, checkpoint: Checkpoint, dequantized: frozenset[str], quantization: Quantization
) -> Inventory:
    """Return an inventory of whole weights with the checkpoint that stores some of them quantised.

    `dequantized` are those. No piece of a file is one of them, so that the mapping has none; what makes them
    is Transformers' code (`devmap.runtime.quantized.dequantized`).
    """
    mapping, architecture = inventory.mapping, inventory.architecture
    assert mapping is not None
    pieces = {
        name: each
        for name, each in mapping.pieces.items()
        if not any(piece.stored in dequantized for piece in each)
    }
    if architecture is not None:
        label = f"{quantization.label}, dequantised while it is loaded"
        figures = {**architecture.figures, "quantization": label}
        figures.pop("quantization_method", None)  # nothing is left of it in the running model
        architecture = dataclasses.replace(architecture, figures=figures)
    return dataclasses.replace(
        inventory,
        architecture=architecture,
        checkpoint=checkpoint,
        mapping=dataclasses.replace(mapping, pieces=pieces),
    )


def _in_module_order(tensors: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Return the tensors with those of a module together, modules in their order; a stable sort."""
    place = {path: number for number, path in enumerate(modules)}
    last = len(place)
    return dict(sorted(tensors.items(), key=lambda item: place.get(item[1].module, last)))


def _name_of(part: str, weight: str, name: str, *, single: bool) -> str:
    """Return the part's name in the model.

    `q_proj.qweight`, `experts.gate_up_proj_blocks`, `q_proj.weight_absmax`.
    """
    module, _, last = name.rpartition(".")
    prefix = f"{module}." if module else ""
    if not single:
        stored = part.split(".")
        shared = len(module.split(".")) if module and part.startswith(prefix) else 0
        return f"{prefix}{last}_{'_'.join(stored[shared:]).replace(':', '_')}"
    if weight.endswith(".weight"):
        rest = part[len(weight) - len("weight") :].replace(".", "_").replace(":", "_")
        return f"{prefix}{rest}"
    return f"{name}{part[len(weight) :]}"


def _left(ties: tuple[tuple[str, ...], ...], tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, ...]]:
    for group in ties:
        names = tuple(name for name in group if name in tensors)
        if len(names) > 1:
            yield names
