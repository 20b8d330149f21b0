"""DM306: an integer dtype for weights that are stored as floating-point numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import placed_sources
from devmap_validators.checks.stored import stored_dtypes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap.inventory.model import Inventory


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
