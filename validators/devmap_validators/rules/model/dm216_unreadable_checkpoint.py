"""DM216: the checkpoint is not there, or damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import CheckpointError
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error = context.inventory_error
    if isinstance(error, CheckpointError):
        hint = (
            error.help
            or "give a folder with safetensors files, or check in a manifest (devmap inspect -o) for "
            "machines without it"
        )
        yield Report(error.message, (*place_of(error), "checkpoint"), help=hint)


RULE = Rule(
    code="DM216",
    name="unreadable-checkpoint",
    severity=Severity.ERROR,
    summary="The checkpoint is not there, or damaged",
    why=(
        "The model's headers cannot be read, so nothing of the map can be checked, and the load would "
        "fail. Shards that are "
        "missing and headers that reach past a file's end are found here, before a machine with "
        "accelerators is rented."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./no-such-folder}
max_memory: {0: 2GB}
""",
    check=_check,
)
