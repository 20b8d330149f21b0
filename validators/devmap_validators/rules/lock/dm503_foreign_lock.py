"""DM503: the lock was made for another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.fingerprint import fingerprint
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    lock, inventory = context.lock, context.inventory
    if lock is None or inventory is None:
        return
    if lock.inventory_fingerprint != fingerprint(inventory):
        hint = f"{lock_command(context)} writes it for this model"
        yield Report(
            "the lock was made for another model than this config names",
            lock_path_in(context, ("model",)),
            on_key=True,
            help=hint,
        )


RULE = Rule(
    code="DM503",
    name="foreign-lock",
    severity=Severity.ERROR,
    summary="The lock was made for another model",
    why="The lock's paths and bytes are those of another inventory: the model was changed, or the lock "
    "was copied.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=_check,
)
