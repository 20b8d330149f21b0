"""DM225: the checkpoint is quantised by a method that nobody here knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.quantization import KNOWN_METHODS
from devmap_validators.checks.quantized import method_of
from devmap_validators.checks.sources import placed_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
