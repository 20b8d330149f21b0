"""DM226: a run dtype is asked for that most weights do not take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import run_bytes
from devmap_validators.checks.quantized import label_of, method_of
from devmap_validators.checks.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
