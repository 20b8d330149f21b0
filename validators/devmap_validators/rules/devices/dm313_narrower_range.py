"""DM313: the run dtype cannot hold numbers that the checkpoint's can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.dtypes import run_dtype
from devmap_validators.checks.groups import counted
from devmap_validators.checks.stored import stored_dtypes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
