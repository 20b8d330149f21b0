"""DM506: this devmap would plan differently than the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.lock_words import lock_command, lock_path_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    lock, plan = context.lock, context.plan
    if lock is None or plan is None or lock.is_hand_edited:
        return
    same_origin = (lock.config_fingerprint, lock.inventory_fingerprint) == (
        plan.config_fingerprint,
        plan.inventory_fingerprint,
    )
    if same_origin and dict(lock.device_map) != dict(plan.device_map):
        moved = next(
            path
            for path in (*plan.device_map, *lock.device_map)
            if plan.device_map.get(path) != lock.device_map.get(path)
        )
        before, after = lock.device_map.get(moved, "no key"), plan.device_map.get(moved, "no key")
        message = (
            f"this devmap plans differently than the lock: {moved or 'the whole model'!r} "
            f"has {before} there and {after} now"
        )
        yield Report(
            message,
            lock_path_in(context),
            on_key=True,
            help=f"devmap diff shows what moves; {lock_command(context)} takes it over",
        )


RULE = Rule(
    code="DM506",
    name="outdated-plan",
    severity=Severity.WARNING,
    summary="This devmap would plan differently than the lock",
    why=(
        "Config and model are those that the lock was made from, and the plan has changed all the same: "
        "another version of "
        "devmap plans better, or the machine is measured anew. The lock still holds and is what loads."
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
