"""DM505: a fresh lock is asked for, and there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if (
        context.locked
        and context.lock is None
        and context.lock_error is None
        and context.document.config is not None
    ):
        hint = f"{lock_command(context)}, and check the file in"
        yield Report("there is no lock beside this config", lock_path_in(context), on_key=True, help=hint)


RULE = Rule(
    code="DM505",
    name="missing-lock",
    severity=Severity.ERROR,
    summary="A fresh lock is asked for, and there is none",
    why=(
        "`--locked` makes sure that every machine loads the plan that was reviewed. Without a lock each "
        "machine would plan for itself."
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
