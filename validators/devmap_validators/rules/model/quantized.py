"""DM225 to DM229: quantised weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.config.values.strategy import QuantizationMethod
from devmap.config.values.words import shown
from devmap.errors import QuantizationError
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.quantization import KNOWN_METHODS, LOADED_METHODS, WHOLE_METHODS
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.config_map import assignment_of
from devmap_validators.checks.sources import label_of, method_of, place_of, placed_sources
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _unknown_quantization(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    method = None if inventory is None else method_of(inventory)
    if config is None or method is None or method in KNOWN_METHODS:
        return
    path, source = next(iter(placed_sources(config)))
    yield Report(
        f"the quantization method {shown(method)} of config.json is not known here",
        (*path, "checkpoint" if source.manifest is None else "manifest"),
        help="its tensors count as they are stored; compare `devmap inspect` "
        "with the files, and report the method",
    )


DM225 = Rule(
    code="DM225",
    name="unknown-quantization",
    severity=Severity.WARNING,
    summary="The checkpoint is quantised by a method that is not known here",
    why=(
        "What a method stores beside a weight is told by its names. Of a method "
        "that is not known every tensor counts at "
        "its stored size, but the modules that will hold them, and what "
        "they need while they run, are guesses."
    ),
    good="""\
version: 1
model: {manifest: quantized.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: unknown-method.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_unknown_quantization,
)


def _dtype_of_quantized(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.model.dtype is None or method_of(inventory) is None:
        return
    if config.model.quantization is not None:  # the dtype is then what weights are converted from
        return
    parts = [name for name, tensor in inventory.tensors.items() if tensor.kind == "part"]
    packed, whole = run_bytes(inventory, parts, None), run_bytes(inventory, inventory.tensors, None)
    if 2 * packed > whole:
        yield Report(
            f"dtype {config.model.dtype} leaves {exact_bytes(packed)} of {exact_bytes(whole)} as they are: "
            f"{label_of(inventory)}",
            ("model", "dtype"),
            help="leave model.dtype out; or load the weights whole with "
            "model.dequantize, where the method allows it",
        )


DM226 = Rule(
    code="DM226",
    name="dtype-of-quantized",
    severity=Severity.WARNING,
    summary="A run dtype is asked for that most weights do not take",
    why=(
        "A run dtype converts what is stored as plain numbers. Packed weights "
        "and their scales stay what they are, so "
        "the model is neither as small nor as precise as the dtype suggests."
    ),
    good="""\
version: 1
model: {manifest: quantized.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: quantized.manifest.yaml, dtype: float32}
max_memory: {0: 2GB}
""",
    check=_dtype_of_quantized,
)


def _parted_weight(context: Context) -> Iterator[Report]:
    inventory, assignment = context.inventory, assignment_of(context)
    if inventory is None or assignment is None or method_of(inventory) is None:
        return
    parted = {name.rpartition(".")[0] for name in assignment.by_path if name in inventory.tensors}
    for module in sorted(parted):  # only keys that name tensors can part what lies on one module
        parts = [name for name, tensor in inventory.tensors.items() if tensor.module == module]
        placed = {
            name: device
            for name in parts
            if inventory.tensors[name].kind == "part"
            and isinstance(device := assignment.target_of(name), Device)
        }
        if len(set(placed.values())) > 1:
            (first, one), (second, other) = _two_apart(placed)
            yield Report(
                f"the parts of '{module}' lie apart: '{first}' on {device_name(one)}, '{second}' on "
                f"{device_name(other)}",
                ("device_map",),
                help=f"one kernel reads them together ({label_of(inventory)}): give '{module}' one device",
            )


def _two_apart(parts: dict[str, Device]) -> tuple[tuple[str, Device], tuple[str, Device]]:
    first, *rest = parts.items()
    return first, next(each for each in rest if each[1] != first[1])


DM227 = Rule(
    code="DM227",
    name="parted-weight",
    severity=Severity.ERROR,
    summary="Parts of one quantised weight lie on different devices",
    why=(
        "A quantised weight is stored as packed numbers, scales and tables, "
        "which one kernel reads together. Keys that "
        "name single tensors can part them, and then nothing can run the module."
    ),
    good="""\
version: 1
model: {manifest: quantized.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: quantized.manifest.yaml}
device_map: {layers.0.q_proj.scales: 1, '': 0}
no_split_module_classes: []
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_parted_weight,
)


def _unloadable_quantization(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    for path, source in placed_sources(config) if config is not None else ():
        if source.quantization is not None and source.quantization.chosen is QuantizationMethod.INT4:
            yield Report(
                "devmap.load does not quantise to int4; the plan counts the packed weights",
                (*path, "quantization"),
                help="use nf4; or let torchao quantise the model on an accelerator, and name what it saved",
            )
    method = None if inventory is None else method_of(inventory)
    if config is None or inventory is None or method not in KNOWN_METHODS - LOADED_METHODS:
        return
    path, source = next(iter(placed_sources(config)))
    yield Report(
        f"devmap.load does not run {label_of(inventory)}; the plan counts its packed weights",
        (*path, "checkpoint" if source.manifest is None else "manifest"),
        help="set model.dequantize: true (with a manifest of `devmap inspect "
        "--dequantize`): it loads the weights whole"
        if method in WHOLE_METHODS
        else (
            "run it by the library that made it, with this plan's map, or take "
            "a checkpoint of bitsandbytes or torchao"
        ),
    )


DM228 = Rule(
    code="DM228",
    name="unloadable-quantization",
    severity=Severity.NOTE,
    summary="devmap plans this quantization method and does not load it",
    why=(
        "The sizes are right, so the plan is one for whatever runs the "
        "model, vLLM or Transformers for example. "
        "`devmap.load` runs bitsandbytes and torchao packed, and FP8, MXFP4 and "
        "compressed-tensors whole; it refuses the "
        "rest by name, since their kernels need accelerators that it was not tried on."
    ),
    good="""\
version: 1
model: {manifest: bitsandbytes.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: quantized.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_unloadable_quantization,
)


def _impossible_quantization(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    if isinstance(error, QuantizationError):
        yield Report(error.message, (*place_of(error), "quantization"), help=error.help)


DM229 = Rule(
    code="DM229",
    name="impossible-quantization",
    severity=Severity.ERROR,
    summary="The model cannot be quantised while it is loaded as the config asks",
    why=(
        "`model.quantization` quantises whole weights of plain linear layers. A checkpoint that is "
        "quantised already, a module that a factory makes, a weight that is tied to another, or numbers "
        "that the library does not take leave nothing that it could do: the load would fail, and the plan "
        "would count bytes that the model never has."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml, quantization: nf4}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: quantized.manifest.yaml, quantization: nf4}
max_memory: {0: 2GB}
""",
    check=_impossible_quantization,
)


RULES = (DM225, DM226, DM227, DM228, DM229)
