"""Edits that put another word in the place of one that somebody wrote, as they wrote it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devmap.config.yaml.faults import Edit
from devmap.config.yaml.scalars import resolve

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position

__all__ = ["rename", "requote", "written"]

_PLAIN = re.compile(r"[A-Za-z_][\w./:-]*(?<!:)\Z|[0-9][\w.]*\Z")
"""Text that is one plain scalar in every context of YAML: `model.layers.0`, `cuda:0`."""


def rename(position: Position, old: str, new: str) -> Edit | None:
    """Return the edit that turns the scalar `old` into `new`, in the quotes that it has.

    None where the text there is something else.

    An alias, a merged key, a value with an anchor or an escape stands for more than its text, and is left to
    a person.
    """
    there = written(position)
    quote = there[:1] if there[:1] in {"'", '"'} else ""
    if there != f"{quote}{old}{quote}" or not old:
        return None
    if not quote and not new.isdecimal() and (not _PLAIN.match(new) or not isinstance(resolve(new), str)):
        quote = "'"
    if {"'", '"', "\\", "\n"}.intersection(new):
        return None
    return Edit(position, f"{quote}{new}{quote}", f"rename to '{new}'")


def requote(position: Position) -> Edit | None:
    """Return the edit that puts quotes round a plain scalar; None where something else stands there."""
    there = written(position)
    return Edit(position, f"'{there}'", "quote it") if re.fullmatch(r"[-+\w.]+", there) else None


def written(position: Position) -> str:
    """Return the text that a position spans, on its first line."""
    line = position.source.line(position.start.line)
    return (
        line[position.start.column - 1 : position.end.column - 1]
        if position.start.line == position.end.line
        else ""
    )
