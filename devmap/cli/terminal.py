"""What the terminal can show: colours and width."""

from __future__ import annotations

import os
import sys

__all__ = ["speaks_unicode", "use_color", "width", "wrapped", "wraps"]

_NARROWEST = 40


def use_color(choice: str, *, to_file: bool = False) -> bool:
    """Return whether to write ANSI colours.

    `always`, `never`, or `auto`, which follows NO_COLOR, FORCE_COLOR and the terminal.
    """
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return not to_file and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def width() -> int:
    """Columns for tables."""
    import shutil  # noqa: PLC0415 - with its archives 3 ms, and most runs show no table

    return max(_NARROWEST, min(120, shutil.get_terminal_size((100, 24)).columns))


def speaks_unicode() -> bool:
    """Return whether standard output can show the block characters of bars."""
    try:
        "\u2588\u2593\u2592\u2591\u00b7".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def wrapped(text: str, *, hanging: int = 0, error: bool = False) -> str:
    """Break a text's lines between words where a terminal, or COLUMNS, says how wide they may be.

    What goes to a file or a pipe keeps its lines whole, for programs that search them; `error` asks for
    standard error. Later lines of each begin `hanging` blanks further to the right than it does. A word, a
    path for example, is never broken, and a figure stays beside its unit.
    """
    if not wraps(error=error):
        return text
    from devmap.report.wrapping import wrap_words  # noqa: PLC0415 - only for a terminal

    return "\n".join("\n".join(wrap_words(line, width(), hanging=hanging)) for line in text.split("\n"))


def wraps(*, error: bool = False) -> bool:
    """Return whether lines for standard output, or error, are to fit a terminal.

    In a file or a pipe they stay whole.
    """
    return bool(os.environ.get("COLUMNS")) or (sys.stderr if error else sys.stdout).isatty()
