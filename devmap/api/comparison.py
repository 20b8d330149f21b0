"""Two of config, lock or plan compared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.locks.revisions import content_at, revision_and_path
from devmap.api.resolution import resolve, resolve_file
from devmap.api.sources import inventory_of
from devmap.config.model.placement_config import PlacementConfig
from devmap.config.regular_files import read_regular
from devmap.errors import LockError, UsageError
from devmap.plan.diff import PlanDiff, diff_locks
from devmap.plan.document import lock_of_document
from devmap.plan.lock import LOCK_SUFFIXES, Lock, lock_of, parse_lock, read_lock
from devmap.plan.model import Plan

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

    Side = str | os.PathLike[str] | PlacementConfig | Lock | Plan

__all__ = ["compare"]


def compare(
    before: Side,
    after: Side,
    *,
    allow_code: bool = False,
    profile_before: str | None = None,
    profile_after: str | None = None,
) -> PlanDiff:
    """Return what moves from one config, lock or plan to another.

    Each side is an object, or the path of a config, of a lock (`*.devmap.lock.yaml`) or of what `devmap plan
    --format json` printed (`*.json`). A lock or a plan may be one of a git revision:
    `HEAD~1:x.devmap.lock.yaml`. A profile is for a side that is the path of a config.

    Raises:
        UsageError: when a profile is given for something else than a config's path.
        DevmapError: what reading or resolving either side raises.
    """
    first, earlier = _lock(before, profile=profile_before, allow_code=allow_code)
    second, later = _lock(after, profile=profile_after, allow_code=allow_code)
    return diff_locks(first, second, models=(earlier, later))


def _lock(side: Side, *, profile: str | None, allow_code: bool) -> tuple[Lock, Inventory | None]:
    """Return what a side says, and its model where it is known."""
    if isinstance(side, Lock):
        return side, None
    if isinstance(side, Plan):
        return lock_of(side), None
    if isinstance(side, PlacementConfig):
        inventory = inventory_of(side, allow_code=allow_code)
        return lock_of(resolve(side, inventory)), inventory
    at = revision_and_path(os.fspath(side))
    if at is not None:
        return _lock_at(*at, os.fspath(side)), None
    path = Path(side)
    is_lock = path.name.endswith(LOCK_SUFFIXES)
    if is_lock or path.suffix == ".json":
        if profile is not None:
            raise UsageError(
                f"{path}: only a config has profiles, and this is not one",
                help="name the config, or leave the profile out",
            )
        return (read_lock(path) if is_lock else _read_document(path)), None
    plan, inventory = resolve_file(path, profile=profile, allow_code=allow_code)
    return lock_of(plan), inventory


def _lock_at(revision: str, path: str, name: str) -> Lock:
    """Return a lock, or a plan as JSON, as git has it."""
    if path.endswith(LOCK_SUFFIXES):
        return parse_lock(content_at(revision, path), name)
    if path.endswith(".json"):
        return _parse_document(content_at(revision, path), name)
    raise UsageError(
        f"{name}: of a revision only locks and plans can be compared",
        help="name its lock: a config of another revision needs that revision's "
        "parents, manifest and checkpoint",
    )


_LIMIT_BYTES = 1 << 26
"""As a lock file's own."""


def _read_document(path: Path) -> Lock:
    try:
        content = read_regular(path, limit_bytes=_LIMIT_BYTES)
    except OSError as error:
        raise LockError(
            f"{path}: cannot be read: {error.strerror or error}",
            help="write it with `devmap plan CONFIG --format json`",
        ) from error
    return _parse_document(content, str(path))


def _parse_document(content: bytes, name: str) -> Lock:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise LockError(
            f"{name}: no JSON: {error}", help="write it with `devmap plan CONFIG --format json`"
        ) from error
    return lock_of_document(document if isinstance(document, dict) else {}, name)
