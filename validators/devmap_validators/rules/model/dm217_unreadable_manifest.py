"""DM217: the manifest is not there, or wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import CheckpointError, QuantizationError
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error, config = context.inventory_error, context.document.config
    if error is None or isinstance(error, CheckpointError | QuantizationError) or config is None:
        return
    model = config.components[error.component] if error.component else config.model
    if model.manifest is None and model.factory is None:
        return  # DM214 says that the config names no model
    key = "manifest" if model.manifest is not None else "factory"
    yield Report(
        error.message,
        (*place_of(error), key),
        help=error.help or "write it anew: devmap inspect CHECKPOINT -o MANIFEST",
    )


RULE = Rule(
    code="DM217",
    name="unreadable-manifest",
    severity=Severity.ERROR,
    summary="The manifest is not there, or wrong",
    why="The manifest is the model as far as checks and plans know it. Without it nothing of the map can "
    "be checked.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: no-such.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_check,
)
