"""What the terminal can show: colours and width."""

from __future__ import annotations

import os
import sys

__all__ = ["speaks_unicode", "use_color", "width"]

_NARROWEST = 40


def use_color(choice: str, *, to_file: bool = False) -> bool:
    """Whether to write ANSI colours.

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
    """Whether standard output can show the block characters of bars."""
    try:
        "\u2588\u2593\u2592\u2591\u00b7".encode(sys.stdout.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
