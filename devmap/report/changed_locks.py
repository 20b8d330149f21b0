"""The locks that changed since a git revision: for a terminal, for a comment on a pull request, as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devmap.config.values.words import escaped
from devmap.report.markdown import render_diff_markdown
from devmap.report.plan_diff import diff_document, render_diff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from devmap.api.locks.revisions import ChangedLock

__all__ = ["render_changed", "render_changed_json", "render_changed_markdown"]


def render_changed(locks: Sequence[ChangedLock], base: str, *, width: int = 100, color: bool = False) -> str:
    """Return each lock's name and what moves in it, ending in a line end."""
    if not locks:
        return f"no lock differs from {escaped(base)}\n"
    parts = []
    for lock in locks:
        text = _WORDS[_state(lock)] if lock.diff is None else render_diff(lock.diff, width=width, color=color)
        parts.append(f"== {escaped(lock.file)}\n{text}")
    return "\n".join(parts)


def render_changed_markdown(locks: Sequence[ChangedLock], base: str) -> str:
    """Return a section for each lock in GitHub's Markdown, ending in a line end."""
    if not locks:
        return f"No lock differs from `{escaped(base)}`.\n"
    parts = []
    for lock in locks:
        text = _WORDS[_state(lock)] if lock.diff is None else render_diff_markdown(lock.diff)
        parts.append(f"### `{escaped(lock.file).replace('`', chr(39))}`\n\n{text}")
    return "\n".join(parts)


def render_changed_json(locks: Sequence[ChangedLock], base: str) -> str:
    """Return one document with the diff of each lock, ending in a line end.

    `docs/plan.md` describes its keys.
    """
    diffs = [
        {
            "file": lock.file,
            "state": _state(lock),
            "diff": None if lock.diff is None else diff_document(lock.diff),
        }
        for lock in locks
    ]
    document = {"version": 1, "kind": "devmap diffs", "base": base, "diffs": diffs}
    return json.dumps(document, indent=2) + "\n"


def _state(lock: ChangedLock) -> str:
    if lock.before is None:
        return "new"
    return "removed" if lock.after is None else "changed"


_WORDS = {"new": "a new lock\n", "removed": "the lock is no longer there\n"}
