"""Files that a command writes for its user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.errors import UsageError
from devmap.plan.lock import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, whole or not at all; what UTF-8 cannot say becomes a question mark.

    Raises:
        UsageError: when it cannot be written.
    """
    try:
        write_atomically(path, text.encode(errors="replace"))
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be written: {error.strerror or error}", help="name another file"
        ) from None
