"""The one writer of YAML.

Block mappings, flow lists of scalars, the same bytes for the same input on every platform.

It knows plain values alone (mappings with text or int keys, lists, text, numbers, booleans, null) and needs
no YAML library. What it writes means the same to a YAML 1.1 and to a YAML 1.2 reader: text that either would
read as something else is quoted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["render_yaml"]

_PLAIN_TEXT = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+-]+)*(?::[A-Za-z0-9_./+-]+)*\Z")
_WORDS_OF_YAML = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"])


_LONGEST_KEY = 1000


def render_yaml(plain: object) -> str:
    """YAML text for a plain value, ending in a line end.

    >>> print(render_yaml({"a": [1, "two"], "b": {"0": None}}), end="")
    a: [1, two]
    b:
      "0": null

    Raises:
        TypeError: for a value that is not plain.
    """
    if isinstance(plain, Mapping) and plain:
        return "".join(f"{line}\n" for line in _mapping_lines(plain, ""))
    if _is_list(plain) and _needs_block(plain):
        return "".join(f"{line}\n" for line in _list_lines(plain, ""))
    return f"{_inline(plain)}\n"


def _mapping_lines(mapping: Mapping[object, object], indent: str) -> Iterator[str]:
    for key, value in mapping.items():
        text = _key(key)
        # YAML allows 1,024 characters to a key; a longer one needs a question mark.
        head = f"{indent}{text}:" if len(text) <= _LONGEST_KEY else f"{indent}? {text}\n{indent}:"
        if isinstance(value, Mapping) and value:
            yield head
            yield from _mapping_lines(value, f"{indent}  ")
        elif _is_list(value) and _needs_block(value):
            yield head
            yield from _list_lines(value, f"{indent}  ")
        else:
            yield f"{head} {_inline(value)}"


def _list_lines(values: Sequence[object], indent: str) -> Iterator[str]:
    for value in values:
        if isinstance(value, Mapping) and value:
            first, *rest = _mapping_lines(value, f"{indent}  ")
            yield f"{indent}- {first[len(indent) + 2 :]}"
            yield from rest
        elif _is_list(value) and _needs_block(value):
            yield f"{indent}-"
            yield from _list_lines(value, f"{indent}  ")
        else:
            yield f"{indent}- {_inline(value)}"


def _is_list(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _needs_block(values: Sequence[object]) -> bool:
    """Return whether a list holds a mapping anywhere.

    Lists of scalars, and of lists of scalars, stand on one line.
    """
    return any(
        (isinstance(value, Mapping) and bool(value)) or (_is_list(value) and _needs_block(value))
        for value in values
    )


def _key(key: object) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        msg = f"a key must be text or an int, found {type(key).__name__}"
        raise TypeError(msg)
    return _inline(key)


def _inline(value: object) -> str:  # noqa: PLR0911 - one return a kind of value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping) and not value:
        return "{}"
    if _is_list(value):
        return f"[{', '.join(map(_inline, value))}]"
    msg = f"{type(value).__name__} is not a plain value"
    raise TypeError(msg)


def _number(value: float) -> str:
    """Return the shortest decimal that reads back the same.

    With a point and a signed exponent, as YAML 1.1 wants floats.
    """
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    mantissa, mark, exponent = repr(value).partition("e")
    if not mark:
        return mantissa
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{point}e{exponent}" if exponent[0] in "+-" else f"{point}e+{exponent}"


def _text(value: str) -> str:
    if (
        _PLAIN_TEXT.match(value)
        and value.lower().lstrip(".") not in _WORDS_OF_YAML
        and not value.startswith(".")
    ):
        return value
    return f'"{_ESCAPED.sub(_as_escape, value)}"'


_ESCAPED = re.compile(r'[^ -~]|["\\]')


def _as_escape(match: re.Match[str]) -> str:
    """Return the escape of a character, which YAML has for all of Unicode; JSON would need two of them."""
    code = ord(match[0])
    if match[0] in '"\\':
        return f"\\{match[0]}"
    return _SHORT.get(match[0]) or (f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}")


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
