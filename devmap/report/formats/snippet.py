"""A line of a source with a caret under a stretch of it, measured as a terminal shows it."""

from __future__ import annotations

import unicodedata

__all__ = ["cells", "snippet"]

_TAB = "    "
_CONTEXT = 20
"""Cells that stay before the caret where a long line is clipped."""
_DOTS = "..."


def snippet(text: str, start: int, end: int, *, width: int) -> tuple[str, int, int]:
    """Return the line to show, the cell in which the caret begins.

    And how many cells it spans (at least one).

    `start` and `end` are columns from 1, the end not included. A line of more than `width` cells is clipped
    round the caret; tabs become four blanks, and characters that a terminal would obey become U+FFFD.
    """
    shown = [_visible(character) for character in text]
    offsets = [0]
    for part in shown:
        offsets.append(offsets[-1] + cells(part))
    first = min(start, len(shown) + 1) - 1
    last = max(first, min(end, len(shown) + 1) - 1)
    before, length = offsets[first], max(1, offsets[last] - offsets[first])
    if offsets[-1] <= width:
        return "".join(shown), before, length
    left = max(0, before - _CONTEXT)
    begin = next(index for index, offset in enumerate(offsets) if offset >= left)
    room = max(width - 2 * len(_DOTS), 1)
    stop = max(index for index, offset in enumerate(offsets) if offset - offsets[begin] <= room)
    head = _DOTS if begin else ""
    tail = _DOTS if stop < len(shown) else ""
    shift = len(head) - offsets[begin]
    visible = offsets[stop] - before
    return head + "".join(shown[begin:stop]) + tail, before + shift, max(1, min(length, visible))


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    Two for wide characters, none for marks that combine.
    """
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def _visible(character: str) -> str:
    if character == "\t":
        return _TAB
    # Control characters and bidirectional marks would let a file rewrite the report about itself.
    return (
        character
        if character.isprintable() or unicodedata.category(character) in {"Zs", "Mn", "Me"}
        else "\ufffd"
    )
