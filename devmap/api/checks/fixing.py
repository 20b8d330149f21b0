"""Configs mended: safe edits tried, checked again, and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.checks.validation import checker, gathered, named, settings_of
from devmap.checking.discovery import find_configs
from devmap.checking.fixing import apply_edits, edited_file, fixable, introduces
from devmap.config.atomic_files import write_atomically
from devmap.config.regular_files import read_regular, real_path
from devmap.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from devmap.api.checks.validation import Validation
    from devmap.checking.fixing import Checked
    from devmap.checking.settings import NearestSettings, Settings
    from devmap.config.overrides import Overrides
    from devmap.findings.model import Finding

__all__ = ["FileChange", "Fixes", "fix"]

_MOST_ROUNDS = 100
"""Of edits to one file: the parser stops at the first fault, so that each may show the next."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What the fixes of one file come to."""

    file: str
    before: bytes
    after: bytes
    fixed: int
    """Problems that are gone."""


@dataclass(frozen=True, slots=True)
class Fixes:
    """What a run of fixes did, or would do."""

    changes: tuple[FileChange, ...]
    before: Validation
    after: Validation

    @property
    def fixed(self) -> int:
        """Problems that are gone."""
        return sum(change.fixed for change in self.changes)


def fix(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    settings: Settings | NearestSettings | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    through_transformers: bool = False,
    locked: bool = False,
    write: bool = True,
) -> Fixes:
    """Apply the safe edits that findings of `validate` carry, again and again until none is left.

    Only files that `paths` mean are changed: a parent's fault is mended where the parent is among them. An
    edit that would bring a new problem is left out. Each file is written whole or not at all; without `write`
    nothing is written.

    Raises:
        UsageError: when a path does not exist, nothing under it is a config, or a file cannot be written.
    """
    nearest = settings_of(settings, allow_code=allow_code)
    files = find_configs(named(paths), excluded=lambda file: nearest.of(file).is_excluded(file))
    check_file = checker(
        nearest,
        profile=profile,
        overrides=overrides,
        allow_code=allow_code,
        through_transformers=through_transformers,
        locked=locked,
    )
    mending = _Mending(files, check_file, nearest)
    before = mending.validation()
    mending.run()
    changes = mending.changes()
    for change in changes if write else ():
        hint = "is the file or its folder read-only?"
        try:
            write_atomically(real_path(change.file), change.after)
        except OSError as error:
            raise UsageError(
                f"{change.file}: cannot be written: {error.strerror or error}", help=hint
            ) from None
    return Fixes(changes, before, mending.validation())


class _Mending:
    """The texts as they would be and what the checks say of them.

    A class because these two change together.
    """

    def __init__(
        self,
        files: Sequence[str],
        check_file: Callable[[str, Mapping[Path, bytes]], Checked],
        nearest: NearestSettings,
    ) -> None:
        self.names = {real_path(file): file for file in files}
        self.drafts: dict[Path, bytes] = {}
        self.fixed: dict[Path, int] = dict.fromkeys(self.names, 0)
        self._check_file = check_file
        self._checked = {file: check_file(file, {}) for file in files}
        self._refused: set[tuple[Path, str, str]] = set()
        self._nearest = nearest

    def validation(self) -> Validation:
        """Return what the checks say of the texts now."""
        return gathered(list(self._checked.values()), self._nearest)

    def changes(self) -> tuple[FileChange, ...]:
        """Return the files whose text is another now."""
        return tuple(
            FileChange(self.names[path], self._content(path), draft, self.fixed[path])
            for path, draft in sorted(self.drafts.items())
        )

    def run(self) -> None:
        """Mend file by file; what mends one may show a fault in another that was passed already."""
        pending = self._files_to_mend()
        while pending:
            for path in pending:
                for _ in range(_MOST_ROUNDS):
                    if not self._mend(path):
                        break
            pending = [path for path in self._files_to_mend() if path not in pending]

    def _content(self, path: Path) -> bytes:
        """Return what stands in the file now."""
        return read_regular(path, limit_bytes=self._nearest.of(self.names[path]).limits.size_bytes)

    def _files_to_mend(self) -> list[Path]:
        edited = {
            edited_file(finding) for checked in self._checked.values() for finding in self._left(checked)
        }
        return [path for path in self.names if path in edited]

    def _left(self, checked: Checked) -> tuple[Finding, ...]:
        return tuple(finding for finding in checked.findings if _key(finding) not in self._refused)

    def _mend(self, path: Path) -> bool:
        """Apply what can be applied to one file at once, else one edit at a time.

        False where there is nothing left to do.
        """
        fixes = fixable(
            [finding for checked in self._checked.values() for finding in self._left(checked)], path
        )
        if not fixes or self._try(path, fixes):
            return bool(fixes)
        for finding in fixes:
            if len(fixes) > 1 and self._try(path, (finding,)):
                return True
            self._refused.add(_key(finding))
        return False

    def _try(self, path: Path, fixes: Sequence[Finding]) -> bool:
        """Apply edits and check again; where that shows something new, everything stays as it was."""
        content = self.drafts[path] if path in self.drafts else self._content(path)
        draft = apply_edits(content, [finding.edit for finding in fixes if finding.edit is not None])
        drafts = {**self.drafts, path: draft}
        concerned = [
            file
            for file, checked in self._checked.items()
            if path in {real_path(name) for name in checked.sources}
        ]
        again = {file: self._check_file(file, drafts) for file in concerned}
        if draft == content or any(
            introduces(fixes, self._checked[file], after) for file, after in again.items()
        ):
            return False
        self.drafts, self.fixed[path] = drafts, self.fixed[path] + len(fixes)
        self._checked |= again
        return True


def _key(finding: Finding) -> tuple[Path, str, str]:
    """Return what stays the same of a finding when lines move.

    An edit that was refused once is not tried for ever.
    """
    return edited_file(finding) or Path(), finding.code, finding.message
