"""Lines broken between words, with figures kept beside their units."""

from __future__ import annotations

import re
from textwrap import wrap

__all__ = ["wrap_words"]

_FIGURE = re.compile(r"(?<=\d) (?=(?:[KMGT]i?)?B\b|[mun]?s\b)")
_HELD = "\u00a0"


def wrap_words(text: str, width: int, *, hanging: int = 0, whole: bool = True) -> list[str]:
    """Break one line into lines of at most `width` columns.

    Later lines begin `hanging` blanks further to the right than the first. A word, a path for example, is
    not broken even where it is longer than a line, unless `whole` is false; a figure is never parted from
    its unit.

    >>> wrap_words("device 0 lacks 1.2 GB", 20, hanging=2)
    ['device 0 lacks', '  1.2 GB']
    """
    indent = " " * (len(text) - len(text.lstrip(" ")))
    lines = wrap(
        _FIGURE.sub(_HELD, text.strip(" ")),
        width,
        initial_indent=indent,
        subsequent_indent=indent + " " * hanging,
        break_long_words=not whole,
        break_on_hyphens=False,
    )
    return [line.replace(_HELD, " ") for line in lines] or [""]
