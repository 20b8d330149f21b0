"""Two configs or locks compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.resolution import resolve_file
from devmap.plan.diff import PlanDiff, diff_locks
from devmap.plan.lock import LOCK_SUFFIXES, Lock, lock_of, read_lock

if TYPE_CHECKING:
    import os

__all__ = ["compare"]


def compare(before: str | os.PathLike[str], after: str | os.PathLike[str], *, allow_code: bool = False) -> PlanDiff:
    """What moves from one config or lock to another.

    Raises:
        DevmapError: what reading or resolving either of them raises.
    """
    return diff_locks(_lock(before, allow_code=allow_code), _lock(after, allow_code=allow_code))


def _lock(path: str | os.PathLike[str], *, allow_code: bool) -> Lock:
    if Path(path).name.endswith(LOCK_SUFFIXES):
        return read_lock(Path(path))
    plan, _ = resolve_file(path, allow_code=allow_code)
    return lock_of(plan)
