"""Findings: what a check says. Rules: what a check is."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from devmap.config.yaml.faults import DocumentPath, Edit
    from devmap.config.yaml.source import Position
    from devmap.findings.context import Context

__all__ = ["Finding", "Report", "Rule", "Severity"]


class Severity(enum.StrEnum):
    """How much a finding matters; `--fail-on` compares them."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for errors, rising as it matters less."""
        return ("error", "warning", "note").index(self.value)


@dataclass(frozen=True, slots=True)
class Report:
    """What a rule yields: a message and the node it is about. The engine adds code, severity and place."""

    message: str
    path: DocumentPath = ()
    on_key: bool = False
    """Whether the caret goes under the node's key rather than its value."""
    help: str = ""
    label: str = ""
    """The words beside the caret."""
    edit: Edit | None = None
    position: Position | None = None
    """Only where the place is not that of `path`: in a comment, in a lock file."""
    severity: Severity | None = None
    """Only where it differs from the rule's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem."""

    code: str
    name: str
    severity: Severity
    message: str
    path: DocumentPath = ()
    position: Position | None = None
    """None for a finding about something that has no file: a device map in a program."""
    help: str = ""
    label: str = ""
    edit: Edit | None = None
    suppressed: str | None = field(default=None)
    """The reason of the comment that suppresses it (may be empty); None if nothing does."""

    origin: Position | None = None
    """Where the value stands in a config that this one extends; `position` is then this one's `extends`."""

    def sort_key(self) -> tuple[str, int, int, str, str]:
        """File, line, column, code, message."""
        place = self.position.sort_key() if self.position else ("", 0, 0)
        return (*place, self.code, self.message)


@dataclass(frozen=True)
class Rule:
    """One check: a frozen object of a rule pack, listed in the pack's registry."""

    code: str
    name: str
    severity: Severity
    summary: str
    """One line for tables."""
    why: str
    """Why it matters, for `devmap explain`: a few sentences."""
    good: str
    """A config that passes (shown and tested)."""
    bad: str
    """A config in which it fires (shown and tested)."""
    check: Callable[[Context], Iterable[Report]]
    suppressible: bool = True
    """Whether a comment or `--ignore` silences it. What keeps a config from being read (DM0xx, DM1xx) always
    shows."""
    optional: bool = False
    """Whether it runs only where the settings or `--extend-select` name it."""
    parts: Callable[[Context], tuple[Rule, ...]] | None = None
    """The rules that a config itself brings along: those of the policies that it names."""
    part_of: Rule | None = None
    """The rule that brought this one: to name that one is to name all its parts."""
