"""How messages quote a value that somebody wrote."""

from __future__ import annotations

__all__ = ["shown"]

_LONGEST = 60


def shown(value: object) -> str:
    """The value in quotes, cut at 60 characters, in YAML's words for null and booleans and on one line.

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
    text = str(value).encode("unicode_escape").decode("ascii") if not str(value).isprintable() else str(value)
    return f"'{text[: _LONGEST - 3]}...'" if len(text) > _LONGEST else f"'{text}'"
