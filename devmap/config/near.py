"""Which of the known words somebody may have meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["near_words"]

_CUTOFF = 0.6
"""How alike a suggestion must be, after difflib's measure; OmegaConf found the same value by use."""


def near_words(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """The words of `known` that `word` may have been meant as, the nearest first, three at most.

    >>> near_words("balansed", ["auto", "balanced", "sequential"])
    ('balanced',)
    """
    import difflib  # noqa: PLC0415 - most runs find nothing misspelt

    return tuple(difflib.get_close_matches(word, list(known), n=3, cutoff=_CUTOFF))
