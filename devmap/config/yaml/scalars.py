"""Plain scalars after the core schema of YAML 1.2, decimal numbers only; everything else is text.

YAML 1.1, which PyYAML resolves by, reads `no` as false, `010` as 8, `8:16` as 496 and `2024-01-01` as a date.
A config says what it looks like.
"""

from __future__ import annotations

import re

__all__ = ["LONGEST_NUMBER", "has_leading_zero", "resolve"]

_CONSTANTS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?|[0-9]+[eE][-+]?[0-9]{1,3})\Z"
)
_SPECIAL = {"inf": float("inf"), "+inf": float("inf"), "-inf": float("-inf"), "nan": float("nan")}
_SPECIAL_TEXT = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+\Z")
_MAY_BE_A_NUMBER = frozenset("+-.0123456789")

LONGEST_NUMBER = 40
"""Digits of the longest number that is read: far more than bytes of any machine, far fewer than Python
refuses to convert."""


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar.

    >>> resolve("8:16"), resolve("no"), resolve("1e-3"), resolve("~")
    ('8:16', 'no', 0.001, None)

    Raises:
        OverflowError: for a number of more than `LONGEST_NUMBER` digits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _MAY_BE_A_NUMBER:
        return text
    if _INTEGER.match(text):
        if len(text) > LONGEST_NUMBER:
            raise OverflowError
        return int(text)
    if _FLOAT.match(text):
        if len(text) > LONGEST_NUMBER:
            raise OverflowError
        return float(text)
    if _SPECIAL_TEXT.match(text):
        return _SPECIAL[text.lower().replace(".", "")]
    return text


def has_leading_zero(text: str) -> bool:
    """Return whether a plain scalar reads as octal to YAML 1.1 and as decimal to YAML 1.2: `010`."""
    return text[:1] in _MAY_BE_A_NUMBER and _LEADING_ZERO.match(text) is not None
