"""Findings about values that a config has from the files it extends: where they are shown, and how often.

What is wrong only together with a config is shown at that config's `extends`. What one line of a shared file
does to several configs is shown once, at that line, with the configs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from devmap.config.regular_files import real_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from devmap.config.document import Document
    from devmap.findings.model import Finding

__all__ = ["at_child", "once_for_all"]

_MOST_NAMES = 5


def at_child(findings: Iterable[Finding], document: Document) -> list[Finding]:
    """Return the findings, those about a parent's value placed at the document's `extends`.

    What a parent's text has wrong by itself (DM0xx, DM1xx) stays there: it is the same for every child.
    """
    parents = {source.name for source in document.sources[1:]}
    return [_moved(finding, document) if _is_inherited(finding, parents) else finding for finding in findings]


def _is_inherited(finding: Finding, parents: set[str]) -> bool:
    own_text = finding.code.startswith(("DM0", "DM1"))
    return finding.position is not None and finding.position.file in parents and not own_text


def _moved(finding: Finding, document: Document) -> Finding:
    origin = finding.position
    assert origin is not None
    stands = f"it stands in {origin.file}:{origin.start.line}:{origin.start.column}"
    return dataclasses.replace(
        finding,
        position=document.position(("extends",)),
        origin=origin,
        help="; ".join(filter(None, (finding.label, stands, finding.help))),
        label="",
    )


def once_for_all(by_file: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return every config's findings, what several have from one place of a shared file as one.

    With the configs.

    `by_file` holds them by config. What a comment suppresses stays as it is.
    """
    shared: dict[object, dict[str, list[Finding]]] = {}
    found: list[Finding] = []
    for file, findings in by_file.items():
        for finding in findings:
            place = finding.origin or finding.position
            if place is None or finding.suppressed is not None:
                found.append(finding)
                continue
            key = (finding.code, real_path(place.file), place.start, place.end)
            shared.setdefault(key, {}).setdefault(file, []).append(finding)
    for holders in shared.values():
        found += _as_one(holders) if len(holders) > 1 else next(iter(holders.values()))
    return found


def _as_one(holders: Mapping[str, list[Finding]]) -> list[Finding]:
    """Return one config's findings of a place, at that place, with the names of all that have them."""
    first = min(holders, key=lambda file: min(finding.severity.rank for finding in holders[file]))
    place = holders[first][0].origin or holders[first][0].position
    assert place is not None
    children = sorted(file for file in holders if real_path(file) != real_path(place.file))
    if not children:
        return holders[first]
    named = ", ".join(children[:_MOST_NAMES])
    more = f" and {len(children) - _MOST_NAMES:,} more" if len(children) > _MOST_NAMES else ""
    count = f"{len(children):,} configs that extend" if len(children) > 1 else "the config that extends"
    return [
        dataclasses.replace(
            finding,
            message=f"{finding.message} (in {count} this file: {named}{more})",
            position=place,
            origin=None,
        )
        for finding in holders[first]
    ]
