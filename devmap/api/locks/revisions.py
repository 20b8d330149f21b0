"""Locks as git has them: one file at a revision, and all that changed since one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.regular_files import is_there
from devmap.config.values.words import shown
from devmap.errors import UsageError
from devmap.plan.diff import diff_locks
from devmap.plan.lock import LOCK_SUFFIXES, parse_lock, read_lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.plan.diff import PlanDiff
    from devmap.plan.lock import Lock

__all__ = ["ChangedLock", "changed_locks", "content_at", "revision_and_path"]

_REVISION_AND_PATH = re.compile(r"(?P<revision>[^:]{2,}):(?P<path>.+)")
"""At least two letters: `C:\\x` is a path."""


@dataclass(frozen=True, slots=True)
class ChangedLock:
    """A lock that is another than it was at a revision; one of the two is None where it is new or gone."""

    file: str
    """Its path from the current folder."""
    before: Lock | None
    after: Lock | None

    @property
    def diff(self) -> PlanDiff | None:
        """What moves; None where only one side has the lock."""
        return diff_locks(self.before, self.after) if self.before and self.after else None

    @property
    def moves(self) -> bool:
        """Whether anything lives or runs elsewhere, or there is a plan where there was none."""
        return self.diff is None or not self.diff.is_empty or not self.diff.same_model


def revision_and_path(side: str) -> tuple[str, str] | None:
    """Return the parts of `HEAD~1:x.devmap.lock.yaml`; None for the name of a file that is there.

    >>> revision_and_path("main:models/x.devmap.lock.yaml")
    ('main', 'models/x.devmap.lock.yaml')
    """
    match = _REVISION_AND_PATH.fullmatch(side)
    return None if match is None or is_there(Path(side)) else (match["revision"], match["path"])


def content_at(revision: str, path: str) -> bytes:
    """Return a file's bytes at a revision.

    The path starts from the current folder, else from the repository's.

    Raises:
        UsageError: when there is no git, no such revision, or no such file in it.
    """
    known_revision(revision)
    for name in (f"./{path}", path):
        found = _git("cat-file", "blob", f"{revision}:{name}")
        if found is not None:
            return found
    raise UsageError(
        f"git has no file {shown(path)} at {shown(revision)}", help=f"git ls-tree -r --name-only {revision}"
    )


def changed_locks(base: str, paths: Sequence[str] = (".",)) -> Iterator[ChangedLock]:
    """Yield every lock below `paths` that differs from where the current branch left `base`, sorted by name.

    Locks that git does not track yet are new ones.

    Raises:
        UsageError: when there is no git, no such revision, or no commit that both have come from.
        LockError: when one of the two sides is no lock.
    """
    known_revision(base)
    fork = _git("merge-base", base, "HEAD")
    if fork is None:
        raise UsageError(
            f"git finds no commit that {shown(base)} and this branch have in common",
            help="fetch the whole history: fetch-depth: 0 in GitHub's checkout, GIT_DEPTH: 0 in GitLab",
        )
    commit = fork.decode().strip()
    folder = Path(_needed("rev-parse", "--show-toplevel").decode().rstrip("\n"))
    listed = _needed("diff", "--name-only", "--no-renames", "--no-ext-diff", "-z", commit, "--", *paths)
    listed += _needed("ls-files", "--others", "--exclude-standard", "--full-name", "-z", "--", *paths)
    for name in sorted({name for name in os.fsdecode(listed).split("\0") if name.endswith(LOCK_SUFFIXES)}):
        file = os.path.relpath(folder / name)
        old = _git("cat-file", "blob", f"{commit}:{name}")
        before = None if old is None else parse_lock(old, f"{base}:{name}")
        after = read_lock(Path(file)) if is_there(Path(file)) else None
        yield ChangedLock(file, before, after)


def known_revision(revision: str) -> None:
    """Check that git knows a revision.

    Raises:
        UsageError: when it does not, or there is no git here.
    """
    if revision.startswith("-") or _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        inside = _git("rev-parse", "--git-dir") is not None
        message = (
            f"git knows no revision {shown(revision)}" if inside else "this folder is in no git repository"
        )
        raise UsageError(message, help="name a branch, a tag or a commit, such as HEAD~1 or origin/main")


def _needed(*arguments: str) -> bytes:
    found = _git(*arguments)
    if found is None:
        raise UsageError(f"git {arguments[0]} failed", help="do all the paths lie in this repository?")
    return found


def _git(*arguments: str) -> bytes | None:
    """Return what git prints; None where it fails.

    It runs nothing that the repository's own settings name.
    """
    program = shutil.which("git")
    if program is None:
        raise UsageError("git is not installed", help="install it, or compare two files")
    # Arguments are words of ours, or a revision and names that stand where git takes nothing for an option.
    done = subprocess.run(  # noqa: S603
        [program, "-c", "core.fsmonitor=false", "--no-optional-locks", *arguments],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout if done.returncode == 0 else None
