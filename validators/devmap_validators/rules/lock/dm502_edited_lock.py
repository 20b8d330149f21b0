"""DM502: the lock was changed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.lock is not None and context.lock.is_hand_edited:
        hint = f"say it in the config, as a key of device_map, and run {lock_command(context)}"
        yield Report(
            "the lock was edited by hand: its content does not have its digest",
            lock_path_in(context),
            on_key=True,
            help=hint,
        )


RULE = Rule(
    code="DM502",
    name="edited-lock",
    severity=Severity.ERROR,
    summary="The lock was changed by hand",
    why=(
        "A lock holds a digest of its content. Where the two differ, the plan is not one that the "
        "resolver made, and none of "
        "its promises hold."
    ),
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
