"""Comments that suppress findings: `# devmap.

Ignore[DM204, unmatched-key] reason`, on a line or for a file.
"""

from __future__ import annotations

import re
from bisect import bisect
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from devmap.config.yaml.reader import quoted_stretches

if TYPE_CHECKING:
    from devmap.config.yaml.source import Position, Source

__all__ = ["MOST_WORDS", "Selector", "Suppression", "read_suppressions"]


MOST_WORDS = 1_000
"""Words in the suppressing comments of one file: what they cost is bounded."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One word between the brackets, and where it stands."""

    word: str
    position: Position


@dataclass(frozen=True, slots=True)
class Suppression:
    """One comment."""

    position: Position
    """From its `#` to the end of the reason."""
    selectors: tuple[Selector, ...]
    """Empty where the comment has no brackets, or nothing between them: it suppresses nothing then."""
    reason: str
    whole_file: bool
    """Whether it is an `ignore-file`."""
    at_head: bool
    """Whether nothing but comments and blank lines stands before it."""


_COMMENT = re.compile(
    r"(?:(?<=[ \t])|^)#[ \t]*devmap:[ \t]*ignore(?P<file>-file)?(?![\w-])[ "
    r"\t]*(?:\[(?P<words>[^\]\n#]*)\])?(?P<reason>[^#\n]*)"
)
_WORD = re.compile(r"[^\s,]+")


def read_suppressions(source: Source) -> tuple[Suppression, ...]:
    """Return the suppressing comments of a text.

    In order, up to the one that has the last of `MOST_WORDS` words.

    A `#` inside a quoted or block scalar begins no comment.
    """
    if "devmap:" not in source.text:
        return ()
    stretches = [
        ((start.line, start.column), (end.line, end.column)) for start, end in quoted_stretches(source)
    ]
    starts = [start for start, _ in stretches]
    words = 0
    found: list[Suppression] = []
    at_head = True
    for number, text in enumerate(source.lines, 1):
        for match in _COMMENT.finditer(text):
            place = (number, match.start() + 1)
            before = bisect(starts, place)
            if not before or place >= stretches[before - 1][1]:
                words += 1 + match[0].count(",")
                found.append(
                    _suppression(match, source, number, at_head=at_head and not text[: match.start()].strip())
                )
            if words >= MOST_WORDS:
                return tuple(found)
        at_head = at_head and (not text.strip() or text.lstrip().startswith(("#", "---")))
    return tuple(found)


def _suppression(match: re.Match[str], source: Source, line: int, *, at_head: bool) -> Suppression:
    start = match.start("words")
    words = islice(_WORD.finditer(match["words"] or ""), MOST_WORDS)
    selectors = tuple(
        Selector(word[0], source.stretch(line, start + word.start() + 1, len(word[0]))) for word in words
    )
    position = source.stretch(line, match.start() + 1, len(match[0].rstrip()))
    return Suppression(position, selectors, match["reason"].strip(), match["file"] is not None, at_head)
