"""Settings of the checks.

`[tool.devmap]` of pyproject.toml, or devmap.toml, found upwards from each config's folder.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from devmap.config.regular_files import is_file, is_there, read_regular, real_path
from devmap.config.values.size import parse_size
from devmap.config.values.words import near_words
from devmap.config.yaml.reader import Limits
from devmap.errors import UsageError
from devmap.findings.model import Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "SETTINGS_FILES",
    "FailOn",
    "NearestSettings",
    "PathIgnore",
    "Settings",
    "find_settings",
    "parse_settings",
]

SETTINGS_FILES = ("devmap.toml", "pyproject.toml")
"""Files that may hold settings; the first counts where a folder has both."""

FailOn: TypeAlias = Severity | Literal["never"]
"""The least severity that makes the exit status 1."""


@dataclass(frozen=True, slots=True)
class PathIgnore:
    """Rules that are off in some files, why, and until when."""

    rules: tuple[str, ...]
    reason: str = ""
    until: dt.date | None = None
    """The last day on which it counts."""

    def counts(self, today: dt.date) -> bool:
        """Return whether it counts on a day."""
        return self.until is None or today <= self.until


Patterns: TypeAlias = "Mapping[str, PathIgnore]"


@dataclass(frozen=True)
class Settings:
    """What runs and what counts. Selectors are codes, names, or prefixes of codes (`DM2`)."""

    select: tuple[str, ...] = ()
    """Only these rules; empty means all that are not optional."""
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()
    """These too: optional rules, or exceptions from a family in `ignore`."""
    packs: tuple[str, ...] = ()
    """Import paths of rule packs beside the built-in one, each with a tuple `ALL_RULES`."""
    fail_on: FailOn = Severity.ERROR
    per_path_ignores: Patterns = field(default_factory=dict)
    """Rules that are off in some files: glob of the path from `root` to selectors."""
    exclude: tuple[str, ...] = ()
    """Globs of files and folders, from `root`, that a walk through folders leaves out."""
    require_reasons: bool = False
    """Whether what is ignored by a comment or by `per_path_ignores` needs a reason."""
    today: dt.date = field(default_factory=dt.date.today)
    """The day on which `until` is judged."""
    limits: Limits = field(default_factory=Limits)
    root: Path = field(default_factory=Path)
    """The folder of the settings' file; the current one where there is none."""
    allow_code: bool = False
    """Whether rule packs may be code of the folder that is checked; never set by a file."""
    strict: bool = False
    """Raise what a rule raises, rather than turn it into DM902. For the tests of rules."""

    def with_options(
        self,
        *,
        select: Sequence[str] = (),
        ignore: Sequence[str] = (),
        extend_select: Sequence[str] = (),
        fail_on: str | None = None,
        allow_code: bool = False,
    ) -> Settings:
        """Return the same with a command line's options.

        `select` replaces, `ignore` and `extend_select` add.
        """
        return replace(
            self,
            select=tuple(_split(select)) or self.select,
            ignore=(*self.ignore, *_split(ignore)),
            extend_select=(*self.extend_select, *_split(extend_select)),
            fail_on=self.fail_on if fail_on is None else _fail_on(fail_on),
            allow_code=self.allow_code or allow_code,
        )

    def is_excluded(self, name: str) -> bool:
        """Return whether a walk through folders leaves the file out."""
        path = self.path_from_root(name)
        return any(_fits(path, glob) for glob in self.exclude)

    def ignored_in(self, name: str) -> tuple[str, ...]:
        """Return the selectors that `per_path_ignores` has for the file of that name."""
        path = self.path_from_root(name)
        return tuple(
            selector
            for glob, ignored in self.per_path_ignores.items()
            if ignored.counts(self.today) and _fits(path, glob)
            for selector in ignored.rules
        )

    @property
    def ended(self) -> tuple[str, ...]:
        """What `per_path_ignores` has that no longer counts, in words."""
        return tuple(
            f"the per-path-ignores of '{glob}' ended on {ignored.until}: {ignored.reason}"
            for glob, ignored in self.per_path_ignores.items()
            if not ignored.counts(self.today)
        )

    def path_from_root(self, name: str) -> str:
        """Return a file's path from `root`, with forward slashes; as it is where it lies elsewhere."""
        try:
            return real_path(name).relative_to(real_path(self.root)).as_posix()
        except ValueError:
            return PurePosixPath(Path(name)).as_posix()


def _fits(path: str, glob: str) -> bool:
    """Return whether a glob means a path, one of its parents, or (without a slash) any part of it."""
    pattern = glob.strip("/")
    parts = path.split("/")
    if "/" not in pattern:
        return any(fnmatchcase(part, pattern) for part in parts)
    return any(fnmatchcase("/".join(parts[:length]), pattern) for length in range(1, len(parts) + 1))


def find_settings(start: Path) -> Settings:
    """Return the settings that hold at `start`.

    They stand in the nearest devmap.toml, or pyproject.toml with `[tool.devmap]`, at `start` or above.

    Raises:
        UsageError: when that file cannot be read or holds a key that there is not.
    """
    folder = real_path(start)
    for place in (folder, *folder.parents):
        found = _settings_in(place)
        if found is not None:
            return found
    return Settings(root=folder)


def _settings_in(folder: Path) -> Settings | None:
    own, project = (folder / name for name in SETTINGS_FILES)
    if is_there(own):
        return parse_settings(_toml(own), own)
    if is_file(project):
        table = _toml(project).get("tool", {})
        if isinstance(table, dict) and "devmap" in table:
            return parse_settings(table["devmap"], project)
    return None


class NearestSettings:
    """The settings of each file: those nearest to it, with a command line's options on top.

    A class because folders are looked at once. It can be pickled.
    """

    def __init__(self, *, fixed: Settings | None = None, **options: Any) -> None:
        """Take options as `Settings.with_options` does; `fixed` settings stand in for those of every file."""
        self._fixed = None if fixed is None else fixed.with_options(**options)
        self._options = options
        self._by_name: dict[str, Settings] = {}
        self._by_folder: dict[Path, Settings | None] = {}

    def of(self, file: str) -> Settings:
        """Return the settings for a file.

        Raises:
            UsageError: when the nearest settings file cannot be read or holds a key that there is not.
        """
        if self._fixed is not None:
            return self._fixed
        folder = os.path.dirname(file)  # noqa: PTH120 - of a thousand files most share it: a text is a cheap key
        found = self._by_name.get(folder)
        if found is None:
            real = real_path(folder or ".")
            nearest = self._nearest(real) or Settings(root=real)
            found = self._by_name[folder] = nearest.with_options(**self._options)
        return found

    def _nearest(self, folder: Path) -> Settings | None:
        if folder not in self._by_folder:
            found = _settings_in(folder)
            if found is None and folder.parent != folder:
                found = self._nearest(folder.parent)
            self._by_folder[folder] = found
        return self._by_folder[folder]


def parse_settings(table: object, path: Path) -> Settings:
    """Return the settings in a table of TOML; `path` is the file it stands in.

    Raises:
        UsageError: when a key is unknown or a value has the wrong kind.
    """
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.devmap is not a table", help="write [tool.devmap] and keys below it")
    settings = Settings(root=path.parent)
    for key, value in table.items():
        parser = _choice(key, _PARSERS, f"{path}: unknown setting '{key}'")
        try:
            settings = parser(settings, value)
        except ValueError as error:
            raise UsageError(f"{path}: {key}: {error}", help="docs/config.md lists the settings") from None
    bare = [glob for glob, ignored in settings.per_path_ignores.items() if not ignored.reason]
    if settings.require_reasons and bare:
        raise UsageError(
            f"{path}: per-path-ignores: '{bare[0]}' lacks its reason, and require-reasons asks for one",
            help=f"write '{bare[0]}' = {{rules = [...], reason = '...', until = 2027-01-31}}",
        )
    return settings


def _toml(path: Path) -> dict[str, object]:
    import tomllib  # noqa: PLC0415 - only where there are settings to read

    try:
        content = read_regular(path, limit_bytes=_LIMIT_BYTES)
        if len(content) > _LIMIT_BYTES:
            raise UsageError(
                f"{path}: the file is too large: more than {_LIMIT_BYTES:,} bytes",
                help="it holds devmap's settings; fix it or remove it",
            )
        return tomllib.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: {getattr(error, 'strerror', None) or error}",
            help="it holds devmap's settings; fix it or remove it",
        ) from None


_Parser: TypeAlias = "Callable[[Settings, object], Settings]"


def _choice(key: str, known: Mapping[str, _Parser], message: str) -> _Parser:
    if key in known:
        return known[key]
    near = near_words(key, known)
    raise UsageError(
        message, help=f"did you mean '{near[0]}'?" if near else f"known settings: {', '.join(known)}"
    )


def _split(selectors: Sequence[str]) -> list[str]:
    """`--ignore DM201,DM202` is the same as giving the option twice."""
    return [word.strip() for selector in selectors for word in selector.split(",") if word.strip()]


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("expected a list of texts")


def _fail_on(value: object) -> FailOn:
    if value == "never":
        return "never"
    try:
        return Severity(str(value))
    except ValueError:
        raise ValueError("expected error, warning, note or never") from None


def _path_ignores(value: object) -> Patterns:
    if not isinstance(value, dict):
        raise ValueError("expected a table from globs to lists of rules")  # noqa: TRY004 - as above
    return {glob: _path_ignore(glob, ignored) for glob, ignored in value.items()}


def _path_ignore(glob: str, value: object) -> PathIgnore:
    if not isinstance(value, dict):
        return PathIgnore(_words(value))
    unknown = value.keys() - {"rules", "reason", "until"}
    if unknown:
        raise ValueError(f"unknown key '{min(unknown)}' of '{glob}'; there are rules, reason and until")
    reason, until = value.get("reason"), value.get("until")
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError(f"'{glob}' lacks its reason: {{rules = [...], reason = '...'}}")
    if until is not None and type(until) is not dt.date:
        raise ValueError(f"until of '{glob}' is a date without quotes, such as 2027-01-31")
    return PathIgnore(_words(value.get("rules")), reason.strip(), until)


def _require_reasons(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")  # noqa: TRY004 - as above
    return value


def _limits(value: object) -> Limits:
    if not isinstance(value, dict):
        raise ValueError("expected a table with size, depth or nodes")  # noqa: TRY004 - as above
    limits = Limits()
    for key, amount in value.items():
        if key == "size":
            limits = replace(limits, size_bytes=parse_size(amount))
        elif key in {"depth", "nodes"}:
            if not isinstance(amount, int) or isinstance(amount, bool) or amount < 1:
                raise ValueError(f"{key} is a whole number from 1")
            if key == "depth" and amount > _DEEPEST:
                raise ValueError(f"depth is at most {_DEEPEST}: the parser's own memory grows with it")
            limits = replace(limits, depth=amount) if key == "depth" else replace(limits, nodes=amount)
        else:
            raise ValueError(f"unknown limit '{key}'; there are size, depth and nodes")
    return limits


_LIMIT_BYTES = 1 << 20

_DEEPEST = 200
"""pydantic and our own walks recurse a few frames a level; Python's limit of 1,000 frames stays far away."""

_PARSERS: dict[str, _Parser] = {
    "select": lambda settings, value: replace(settings, select=_words(value)),
    "ignore": lambda settings, value: replace(settings, ignore=_words(value)),
    "extend-select": lambda settings, value: replace(settings, extend_select=_words(value)),
    "rules": lambda settings, value: replace(settings, packs=_words(value)),
    "fail-on": lambda settings, value: replace(settings, fail_on=_fail_on(value)),
    "per-path-ignores": lambda settings, value: replace(settings, per_path_ignores=_path_ignores(value)),
    "exclude": lambda settings, value: replace(settings, exclude=_words(value)),
    "require-reasons": lambda settings, value: replace(settings, require_reasons=_require_reasons(value)),
    "limits": lambda settings, value: replace(settings, limits=_limits(value)),
}
