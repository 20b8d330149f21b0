"""Locks of many configs at once, written or compared with what they would be: one for each profile too."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.checks.validation import named
from devmap.api.gate import refuse_errors
from devmap.api.machine import machine_of, needs_machine
from devmap.api.resolution import resolve
from devmap.api.sources import inventory_of
from devmap.checking.discovery import find_configs
from devmap.checking.settings import NearestSettings
from devmap.config.document import load_document, read_config
from devmap.config.overrides import override_texts
from devmap.config.regular_files import is_there, read_regular, real_path
from devmap.errors import DevmapError, LockError
from devmap.plan.lock import lock_path, parse_lock, render_lock, write_lock
from devmap.plan.locked_machine import locked_machine

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.overrides import Overrides
    from devmap.inventory.model import Inventory

__all__ = ["LockFile", "LockState", "lock_files"]


class LockState(enum.StrEnum):
    """What is so of a lock."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    MISSING = "missing"
    """There is none, and none was written."""
    STALE = "stale"
    """It says something else than a new one would, and was left as it is."""
    FAILED = "failed"
    """There is no plan."""

    @property
    def is_fine(self) -> bool:
        """Whether the lock is what it should be."""
        return self in {LockState.WRITTEN, LockState.UNCHANGED}


@dataclass(frozen=True, slots=True)
class LockFile:
    """One lock of a config."""

    config: str
    profile: str | None
    path: Path
    state: LockState
    error: DevmapError | None = None
    """Why there is no plan."""


def lock_files(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    check: bool = False,
) -> Iterator[LockFile]:
    """Write the locks of configs and of every config below the folders among `paths`.

    And yield each when it is done.

    Each config has one lock, and one more for each of its profiles; with `profile` that one alone. Abstract
    configs have none, and neither do files without a model that another of the configs extends. A lock that
    would be the same is left alone. With `check` nothing is written; a config that leaves its devices to the
    machine is then compared with the devices that its lock fixes.

    Raises:
        UsageError: when a path does not exist, or nothing under it is a config.
    """
    nearest = NearestSettings(allow_code=allow_code)
    files = find_configs(named(paths), excluded=lambda file: nearest.of(file).is_excluded(file))
    texts = override_texts(overrides)
    documents = {file: load_document(file) for file in files}
    parents = {real_path(source.name) for each in documents.values() for source in each.sources[1:]}
    for file, document in documents.items():
        is_base = (
            document.config is None and real_path(file) in parents and "model" not in (document.data or {})
        )
        if document.is_abstract or is_base:
            continue
        profiles: list[str | None] = [profile]
        if profile is None and document.config is not None:
            profiles += document.config.profiles
        for chosen in profiles:
            path = lock_path(Path(file), chosen)
            try:
                state = _lock(file, chosen, path, texts, allow_code=allow_code, check=check)
            except DevmapError as error:
                yield LockFile(file, chosen, path, LockState.FAILED, error)
            else:
                yield LockFile(file, chosen, path, state)


def _lock(
    file: str,
    profile: str | None,
    path: Path,
    overrides: tuple[str, ...],
    *,
    allow_code: bool,
    check: bool,
) -> LockState:
    config = read_config(file, profile, overrides=overrides)
    inventory = inventory_of(config, allow_code=allow_code)
    content = _content(path)
    if check and content is None:
        return LockState.MISSING
    machine = _fixed_machine(content, path, config, inventory) if check and content is not None else None
    plan = resolve(config, inventory, machine=machine, allow_code=allow_code)
    refuse_errors(file, plan, inventory, profile=profile, overrides=overrides, allow_code=allow_code)
    if content == render_lock(plan).encode():
        return LockState.UNCHANGED
    if check:
        return LockState.STALE
    write_lock(plan, path)
    return LockState.WRITTEN


def _content(path: Path) -> bytes | None:
    """Return the bytes of a lock; None where there is none, or something that a new one replaces."""
    if not is_there(path):
        return None
    try:
        return read_regular(path, limit_bytes=1 << 26)
    except OSError as error:
        raise LockError(
            f"{path}: cannot be read: {error.strerror or error}", help="remove it, and write it again"
        ) from error


def _fixed_machine(
    content: bytes, path: Path, config: PlacementConfig, inventory: Inventory
) -> MachineProfile | None:
    """Return the devices that a lock fixes for a config that leaves them to the machine.

    None where it fixes none.
    """
    if not needs_machine(config) or machine_of(config, probe=False) is not None:
        return None
    try:
        return locked_machine(parse_lock(content, str(path)), config, inventory)
    except LockError:
        return None  # it is no lock: whatever the plan is, it differs
