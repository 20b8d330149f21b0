"""DM228: devmap plans this method and does not load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.strategy import QuantizationMethod
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.quantization import KNOWN_METHODS, LOADED_METHODS, WHOLE_METHODS
from devmap_validators.checks.quantized import label_of, method_of
from devmap_validators.checks.sources import placed_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
