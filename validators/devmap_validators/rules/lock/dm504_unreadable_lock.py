"""DM504: the lock cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    error = context.lock_error
    if error is not None:
        hint = error.help or f"{lock_command(context)} writes it anew"
        yield Report(error.message, lock_path_in(context), on_key=True, help=hint)


RULE = Rule(
    code="DM504",
    name="unreadable-lock",
    severity=Severity.ERROR,
    summary="The lock cannot be read",
    why="A lock that is damaged, or was written by a later devmap, cannot be compared with the config.",
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
