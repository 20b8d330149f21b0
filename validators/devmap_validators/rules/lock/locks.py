"""DM501 to DM506: the lock beside a config."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.fingerprint import fingerprint
from devmap.plan.fingerprint import config_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context

__all__ = ["RULES"]


def _lock_command(context: Context) -> str:
    """Return the command that writes the lock of a config, or of the profile that is laid over it."""
    profile = "" if context.profile is None else f" --profile {shlex.quote(context.profile)}"
    return f"devmap resolve {shlex.quote(context.document.source.name)}{profile} --lock"


def _lock_path_in(context: Context, otherwise: DocumentPath = ()) -> DocumentPath:
    """Return the profile whose lock it is: each has its own; without one `otherwise`."""
    profiles = (context.document.data or {}).get("profiles")
    known = context.profile is not None and isinstance(profiles, dict) and context.profile in profiles
    return ("profiles", context.profile) if known and context.profile is not None else otherwise


def _stale_lock(context: Context) -> Iterator[Report]:
    config, lock = context.document.config, context.lock
    if config is None or lock is None:
        return
    now = context.plan.config_fingerprint if context.plan is not None else ""
    if lock.config_fingerprint != (now or config_fingerprint(config)):
        hint = f"{_lock_command(context)}, and read its diff"
        yield Report(
            "the lock was made from another state of this config",
            _lock_path_in(context),
            on_key=True,
            help=hint,
        )


DM501 = Rule(
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
    check=_stale_lock,
)


def _edited_lock(context: Context) -> Iterator[Report]:
    if context.lock is not None and context.lock.is_hand_edited:
        hint = f"say it in the config, as a key of device_map, and run {_lock_command(context)}"
        yield Report(
            "the lock was edited by hand: its content does not have its digest",
            _lock_path_in(context),
            on_key=True,
            help=hint,
        )


DM502 = Rule(
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
    check=_edited_lock,
)


def _foreign_lock(context: Context) -> Iterator[Report]:
    lock, inventory = context.lock, context.inventory
    if lock is None or inventory is None:
        return
    if lock.inventory_fingerprint != fingerprint(inventory):
        hint = f"{_lock_command(context)} writes it for this model"
        yield Report(
            "the lock was made for another model than this config names",
            _lock_path_in(context, ("model",)),
            on_key=True,
            help=hint,
        )


DM503 = Rule(
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
    check=_foreign_lock,
)


def _unreadable_lock(context: Context) -> Iterator[Report]:
    error = context.lock_error
    if error is not None:
        hint = error.help or f"{_lock_command(context)} writes it anew"
        yield Report(error.message, _lock_path_in(context), on_key=True, help=hint)


DM504 = Rule(
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
    check=_unreadable_lock,
)


def _missing_lock(context: Context) -> Iterator[Report]:
    if (
        context.locked
        and context.lock is None
        and context.lock_error is None
        and context.document.config is not None
    ):
        hint = f"{_lock_command(context)}, and check the file in"
        yield Report("there is no lock beside this config", _lock_path_in(context), on_key=True, help=hint)


DM505 = Rule(
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
    check=_missing_lock,
)


def _outdated_plan(context: Context) -> Iterator[Report]:
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
            _lock_path_in(context),
            on_key=True,
            help=f"devmap diff shows what moves; {_lock_command(context)} takes it over",
        )


DM506 = Rule(
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
    check=_outdated_plan,
)


RULES = (DM501, DM502, DM503, DM504, DM505, DM506)
