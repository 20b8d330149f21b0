"""What fixes changed: unified diffs, and a line that sums them up."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from devmap.report.formats.results import counted, relative_path

if TYPE_CHECKING:
    from devmap.api.checks.fixing import FileChange, Fixes

__all__ = ["fixes_summary", "render_diff"]

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
"""A line as `patch` and git know it: only LF ends one."""


def fixes_summary(fixes: Fixes, *, written: bool = True) -> str:
    """`fixed 3 problems in 2 files`, with a line end; empty where nothing could be fixed."""
    if not fixes.changes:
        return ""
    verb = "fixed" if written else "would fix"
    return f"{verb} {counted(fixes.fixed, 'problem')} in {counted(len(fixes.changes), 'file')}\n"


def render_diff(fixes: Fixes) -> str:
    """Return a unified diff of every changed file, such as `git apply` takes.

    Line ends are shown as the file has them.
    """
    return "".join(_file_diff(change) for change in fixes.changes)


def _file_diff(change: FileChange) -> str:
    before, after = (
        _LINE.findall(content.decode(errors="replace")) for content in (change.before, change.after)
    )
    name = relative_path(change.file)
    lines = difflib.unified_diff(before, after, f"a/{name}", f"b/{name}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )
