"""Comments that ignore what is found today.

With them an old repository can begin with a gate for what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.api.checks.validation import named, settings_of, validate
from devmap.checking.discovery import find_configs
from devmap.checking.fixing import apply_edits
from devmap.config.atomic_files import write_atomically
from devmap.config.regular_files import read_regular, real_path
from devmap.config.yaml.comments import read_suppressions
from devmap.config.yaml.faults import Edit
from devmap.config.yaml.reader import read_yaml
from devmap.config.yaml.source import LineColumn, Position
from devmap.errors import UsageError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from devmap.api.checks.validation import Validation
    from devmap.checking.settings import NearestSettings, Settings
    from devmap.config.overrides import Overrides
    from devmap.config.yaml.source import Source

__all__ = ["Ignores", "add_ignores"]


@dataclass(frozen=True, slots=True)
class Ignores:
    """What was ignored, and what is left."""

    added: int
    """Findings that a comment suppresses now."""
    files: tuple[str, ...]
    """The files that got comments."""
    after: Validation
    """What the checks find now: what cannot be suppressed, or stands where no comment can."""


def add_ignores(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    reason: str,
    *,
    settings: Settings | NearestSettings | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
    locked: bool = False,
) -> Ignores:
    """Write `# devmap: ignore[CODE] reason` behind every line that `validate` finds something on.

    Only files that `paths` mean are changed, each whole or not at all. A comment that would change what the
    file says (inside a text of several lines) is not written.

    Raises:
        UsageError: when the reason is empty or holds a `#` or a line end, a path does not exist, nothing
        under it is
            a config, or a file cannot be written.
    """
    reason = reason.strip()
    if not reason or "#" in reason or not reason.isprintable():
        raise UsageError(
            "the reason of a comment is words on one line, without '#'",
            help="for example --add-ignores 'older than the gate'",
        )
    nearest = settings_of(settings, allow_code=allow_code)

    def check() -> Validation:
        return validate(
            paths,
            settings=nearest,
            profile=profile,
            overrides=overrides,
            allow_code=allow_code,
            locked=locked,
        )

    before = check()
    suppressible = {rule.code for rule in (*before.known, *before.brought) if rule.suppressible}
    wanted: dict[Path, dict[int, list[str]]] = {}
    sources: dict[Path, Source] = {}
    for finding in before.findings:
        place = finding.position
        if finding.suppressed is None and place is not None and finding.code in suppressible:
            path = real_path(place.file)
            codes = wanted.setdefault(path, {}).setdefault(place.start.line, [])
            sources[path] = place.source
            if finding.code not in codes:
                codes.append(finding.code)
    files = []
    for file in find_configs(named(paths), excluded=lambda name: nearest.of(name).is_excluded(name)):
        path = real_path(file)
        if path in wanted and _add(
            path, sources[path], wanted[path], reason, nearest.of(file).limits.size_bytes
        ):
            files.append(file)
    after = check() if files else before
    return Ignores(_ignored(after) - _ignored(before), tuple(files), after)


def _ignored(validation: Validation) -> int:
    return sum(finding.suppressed is not None for finding in validation.findings)


def _add(path: Path, source: Source, codes: dict[int, list[str]], reason: str, limit_bytes: int) -> bool:
    """Write the comments of one file; False where none could be written."""
    content = read_regular(path, limit_bytes=limit_bytes)
    said = read_yaml(content, source.name).data
    edits: list[Edit] = []
    for line, found in sorted(codes.items()):
        edit = _edit(source, line, found, reason)
        if read_yaml(apply_edits(content, [edit]), source.name).data == said:
            edits.append(edit)
    if not edits:
        return False
    try:
        write_atomically(path, apply_edits(content, edits))
    except OSError as error:
        raise UsageError(
            f"{source.name}: cannot be written: {error.strerror or error}", help="is it read-only?"
        ) from None
    return True


def _edit(source: Source, line: int, codes: Iterable[str], reason: str) -> Edit:
    """Return the codes put into the comment that the line has, or a comment at its end."""
    for comment in read_suppressions(source):
        if not comment.whole_file and comment.selectors and comment.position.start.line == line:
            end = comment.selectors[-1].position.end
            return Edit(Position(source, end, end), "".join(f", {code}" for code in codes), "ignore it")
    end = LineColumn(line, len(source.line(line).rstrip()) + 1)
    return Edit(Position(source, end, end), f"  # devmap: ignore[{', '.join(codes)}] {reason}", "ignore it")
