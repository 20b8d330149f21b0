"""DM305, DM306, DM313: the dtype that the model is asked to run in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.dtypes import element_bits, run_dtype
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.sources import placed_sources, stored_dtypes
from devmap_validators.checks.wording import counted, exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory

__all__ = ["RULES"]


def _upcast(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.model.dtype is None:
        return
    asked = config.model.dtype
    grown = {
        (stored, kind)
        for stored, kind in stored_dtypes(inventory)
        if element_bits(run_dtype(stored, asked, kind=kind)) > element_bits(stored)
    }
    if not grown:
        return
    wider: Counter[str] = Counter()
    for tensor in inventory.tensors.values():
        if (tensor.dtype, tensor.kind) in grown:
            wider[tensor.dtype] += tensor.nbytes
    before, after = (
        run_bytes(inventory, inventory.tensors, None),
        run_bytes(inventory, inventory.tensors, asked),
    )
    # A few float16 norms in a float32 model are no mistake; a model that grows by a quarter is.
    if after * 4 >= before * 5:
        stored = wider.most_common(1)[0][0]
        message = (
            f"{asked} makes {exact_bytes(after)} of {exact_bytes(before)}: the weights are stored as {stored}"
        )
        yield Report(
            message,
            ("model", "dtype"),
            help=f"write dtype: {stored}, or leave it out, unless the wider numbers are needed (training)",
        )


DM305 = Rule(
    code="DM305",
    name="upcast",
    severity=Severity.WARNING,
    summary="The run dtype is wider than the checkpoint's",
    why=(
        "A wider dtype takes more memory and holds nothing more: float32 weights made from bfloat16 are "
        "the same numbers in "
        "twice the bytes."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: bfloat16}
max_memory: {0: 3GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: float32}
max_memory: {0: 3GB}
""",
    check=_upcast,
)


def _integer_dtype(context: Context) -> Iterator[Report]:
    config = context.document.config
    for path, model in placed_sources(config) if config is not None else ():
        asked = model.dtype
        if asked is None:
            continue
        if asked.startswith(("int", "uint")):
            hint = (
                "leave dtype out: a quantised checkpoint keeps its own dtypes; or write bfloat16 or float16"
            )
            yield Report(f"weights cannot be converted to {asked} by a cast", (*path, "dtype"), help=hint)
        elif asked.startswith("float8") and not _is_stored(asked, context.inventory):
            hint = "use a checkpoint that was quantised with scales, or bfloat16"
            message = f"a cast to {asked} loses most digits, and few kernels compute in it"
            yield Report(message, (*path, "dtype"), help=hint, severity=Severity.WARNING)


def _is_stored(dtype: str, inventory: Inventory | None) -> bool:
    return inventory is not None and any(stored == dtype for stored, _ in stored_dtypes(inventory))


DM306 = Rule(
    code="DM306",
    name="integer-dtype",
    severity=Severity.ERROR,
    summary="A run dtype that a cast cannot reach: an integer, or float8 without scales",
    why=(
        "Converting floating-point weights to int8 rounds nearly all of them to zero. Quantisation needs "
        "scales: it is done "
        "beforehand, and its checkpoint holds the integers."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: bfloat16}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: int8}
max_memory: {0: 2GB}
""",
    check=_integer_dtype,
)


def _narrower_range(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.model.dtype is None:
        return
    asked = config.model.dtype
    narrowed = sum(
        count
        for (stored, kind), count in stored_dtypes(inventory).items()
        if stored == "bfloat16" and run_dtype(stored, asked, kind=kind) == "float16"
    )
    if narrowed:
        tensors = counted(narrowed, "tensor")
        message = (
            f"{tensors} of bfloat16 would become float16, whose largest value "
            "is 65,504: larger ones become infinite"
        )
        yield Report(
            message,
            ("model", "dtype"),
            help="write dtype: bfloat16, or leave it out, if the accelerator has it",
        )


DM313 = Rule(
    code="DM313",
    name="narrower-range",
    severity=Severity.WARNING,
    summary="The checkpoint is stored in bfloat16 and runs in float16",
    why=(
        "Both have 16 bits, but bfloat16 reaches to 3e38 and float16 to 65,504. Models that were trained "
        "in bfloat16 have activations "
        "and at times weights beyond that; in float16 they become infinite, and the output is NaN or "
        "nonsense. Accelerators that "
        "are too old for bfloat16 run such a model in float32."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: bfloat16}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml, dtype: float16}
max_memory: {0: 2GB}
""",
    check=_narrower_range,
)


RULES = (DM305, DM306, DM313)
