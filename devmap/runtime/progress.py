"""How loading says how far it is."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called now and then while a model is loaded, always from the loading thread; the last call has `done_bytes == total_bytes`."""

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        """Bytes in place so far, of all bytes that have to be brought there."""


def silent(done_bytes: int, total_bytes: int) -> None:
    """Says nothing."""
