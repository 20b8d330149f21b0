"""What a format shows: the findings of one run, and how they may look."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.values.words import escaped
from devmap.findings.model import Severity

if TYPE_CHECKING:
    from devmap.findings.model import Finding, Rule

__all__ = ["Results", "counted", "file_of", "json_text", "relative_path", "safe"]


@dataclass(frozen=True)
class Results:
    """The input of every format."""

    findings: tuple[Finding, ...]
    """In order; suppressed ones too."""
    files: tuple[str, ...] = ()
    """Every file that was checked."""
    rules: tuple[Rule, ...] = ()
    """Metadata for SARIF; those of the findings' codes are enough."""
    color: bool = False
    width: int = 100
    wraps: bool = False
    """Whether sentences are broken to fit the width; in a file or a pipe each stays one line."""

    @cached_property
    def open(self) -> tuple[Finding, ...]:
        """The findings that nothing suppresses."""
        return tuple(finding for finding in self.findings if finding.suppressed is None)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of one severity that nothing suppresses."""
        return tuple(finding for finding in self.open if finding.severity is severity)

    def summary(self) -> str:
        """Return one line: `2 errors, 1 warning in 1 file (1 ignored)`."""
        parts = [
            counted(len(self.of(severity)), severity.value) for severity in Severity if self.of(severity)
        ]
        ignored = len(self.findings) - len(self.open)
        tail = f" ({ignored} ignored)" if ignored else ""
        where = f" in {counted(len(self.files), 'file')}" if self.files else ""
        return f"{', '.join(parts) if parts else 'no problems'}{where}{tail}"


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: `1 file`, `2 files`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def file_of(finding: Finding) -> str:
    """Return the finding's file for machines; empty where it has none."""
    return relative_path(finding.position.file) if finding.position else ""


def relative_path(name: str) -> str:
    """Return a file's path from the current folder, with forward slashes.

    Reports travel, absolute paths do not.
    """
    if not Path(name).is_absolute():
        return Path(name).as_posix()
    return Path(os.path.relpath(name)).as_posix()


def safe(finding: Finding) -> Finding:
    """Return the finding with every control character in its words written out.

    A terminal, a log or a page would obey these rather than show them.

    Files and paths in the document stay what they are: each format writes them in its own way.
    """
    return replace(
        finding,
        message=escaped(finding.message.replace("\n", " ")),
        label=escaped(finding.label.replace("\n", " ")),
        help=escaped(finding.help, keep="\n"),
        suppressed=None if finding.suppressed is None else escaped(finding.suppressed),
    )


def json_text(value: object) -> str:
    """Return a document in JSON, indented, readable in any language.

    And with what cannot be printed written out.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNUSUAL.sub(_as_json_escape, text) + "\n"


_UNUSUAL = re.compile(r"[^\n\x20-\x7e]")


def _as_json_escape(match: re.Match[str]) -> str:
    if (
        "\ud800" <= match[0] <= "\udfff"
    ):  # half a character, which UTF-8 cannot say and readers of JSON refuse
        return "?"
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]
