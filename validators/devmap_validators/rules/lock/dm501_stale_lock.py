"""DM501: the lock was made from another config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.plan.fingerprint import config_fingerprint
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, lock = context.document.config, context.lock
    if config is None or lock is None:
        return
    now = context.plan.config_fingerprint if context.plan is not None else ""
    if lock.config_fingerprint != (now or config_fingerprint(config)):
        hint = f"{lock_command(context)}, and read its diff"
        yield Report(
            "the lock was made from another state of this config",
            lock_path_in(context),
            on_key=True,
            help=hint,
        )


RULE = Rule(
    code="DM501",
    name="stale-lock",
    severity=Severity.ERROR,
    summary="The lock was made from another config",
    why="The lock is what a machine loads. When the config has changed since, what was reviewed is not "
    "what runs.",
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
