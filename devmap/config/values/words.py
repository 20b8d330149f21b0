"""Which of the known words somebody may have meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["escaped", "near_words", "shown", "shown_path", "sure_word"]


_CUTOFF = 0.6
"""How alike a suggestion must be, after difflib's measure; OmegaConf found the same value by use."""


def near_words(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return the words of `known` that `word` may have been meant as, the nearest first, three at most.

    >>> near_words("balansed", ["auto", "balanced", "sequential"])
    ('balanced',)
    """
    import difflib  # noqa: PLC0415 - most runs find nothing misspelt

    return tuple(difflib.get_close_matches(word, list(known), n=3, cutoff=_CUTOFF))


def sure_word(word: str, known: Iterable[str]) -> str | None:
    """Return the one word of `known` that `word` must have been meant as, so that a program may write it.

    None where a person has to choose.

    It is the only near one, or the only one that a single slip of the hand makes of `word`: a letter too
    many, too few, wrong, or two in the wrong order. Case does not count. Numbers are never guessed: both have
    the same digits.

    >>> sure_word("q_prj", ["q_proj", "k_proj", "v_proj"])
    'q_proj'
    >>> sure_word("40", ["0", "1"]), sure_word("float8", ["float"])
    (None, None)
    """
    folded = word.casefold()
    digits = _DIGITS.findall(word)
    candidates = list(dict.fromkeys(known))
    slips = [candidate for candidate in candidates if _one_slip(folded, candidate.casefold())]
    near = near_words(folded, candidates)
    found = slips if len(slips) == 1 else list(near)
    if not word or len(found) != 1 or _DIGITS.findall(found[0]) != digits or found[0].isdecimal():
        return None
    return found[0]


_DIGITS = re.compile(r"[0-9]+")


def _one_slip(word: str, other: str) -> bool:
    """Return whether one inserted, lost, wrong or swapped letter, or none, lies between two words."""
    if abs(len(word) - len(other)) > 1:
        return False
    start = next(
        (place for place, pair in enumerate(zip(word, other, strict=False)) if pair[0] != pair[1]),
        min(len(word), len(other)),
    )
    rest, wanted = word[start:], other[start:]
    swapped = rest[1::-1] + rest[2:] == wanted and len(rest) > 1
    return rest == wanted or rest[1:] == wanted[1:] or rest[1:] == wanted or rest == wanted[1:] or swapped


# How messages quote a value that somebody wrote.


_LONGEST = 60


def shown(value: object) -> str:
    """Return the value in quotes, cut at 60 characters.

    In YAML's words for null and booleans and on one line.

    >>> shown("8gb"), shown(None), shown(True)
    ("'8gb'", 'null', 'true')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = escaped(str(value))
    return f"'{text[: _LONGEST - 3]}...'" if len(text) > _LONGEST else f"'{text}'"


def shown_path(path: object) -> str:
    """Return a file's name in quotes and on one line.

    A name that no file has may be long, and is cut in its middle.

    >>> shown_path("models/x.manifest.yaml")
    "'models/x.manifest.yaml'"
    """
    text = escaped(str(path))
    half = _LONGEST_PATH // 2
    return f"'{text[:half]}...{text[-half:]}'" if len(text) > _LONGEST_PATH else f"'{text}'"


_LONGEST_PATH = 300


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return the text with everything that a terminal or a log would obey written out.

    But for the characters in `keep`.

    That is what Python calls not printable: control characters, ends of lines, marks that turn the direction
    of writing, surrogates, and blanks that only look like one.

    >>> print(escaped("a\x1b[31m\u202e"))
    a\x1b[31m\u202e
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in keep else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
