"""DM305: the run dtype is wider than the checkpoint's."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.dtypes import element_bits, run_dtype
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.stored import stored_dtypes
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
