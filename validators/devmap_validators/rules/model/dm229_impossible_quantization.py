"""DM229: the model cannot be quantised while it is loaded as the config asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import QuantizationError
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    if isinstance(error, QuantizationError):
        yield Report(error.message, (*place_of(error), "quantization"), help=error.help)


RULE = Rule(
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
    check=_check,
)
