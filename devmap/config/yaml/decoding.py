"""Bytes of a file to a source text, or the fault that keeps it from being one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from devmap.config.yaml.faults import Fault
from devmap.config.yaml.source import Source

__all__ = ["FORBIDDEN", "Limits", "character_name", "decode"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost. The defaults are far above any real config."""

    size_bytes: int = 1 << 20
    depth: int = 64
    nodes: int = 100_000
    """Nodes after aliases and merges are expanded."""


FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
"""What YAML does not allow, and what only some parsers take for the end of a line (U+0085, U+2028, U+2029).
"""

_BOM = b"\xef\xbb\xbf"
_NAMES = {
    0x00: "NUL: is this a text file in UTF-8?",
    0x1B: "an escape character",
    0x85: "NEL, which ends a line for some parsers",
    0x2028: "a line separator, which ends a line for some parsers",
    0x2029: "a paragraph separator, which ends a line for some parsers",
    0xFEFF: "a byte order mark inside the file",
}


def decode(content: bytes, name: str, limits: Limits, *, hidden: bool = False) -> tuple[Source, Fault | None]:
    """Return the text of a file in UTF-8, a byte order mark at its head taken off.

    The fault where it is no such text.
    """
    empty = Source(name, "", hidden)
    if len(content) > limits.size_bytes:
        message = f"the file is too large: more than {limits.size_bytes:,} bytes"
        return empty, Fault(
            "DM001",
            message,
            empty.stretch(1, 1),
            help="if it really is a config, raise 'size' in [tool.devmap.limits]",
        )
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return empty, Fault(
            "DM002", "the file is UTF-16, not UTF-8", empty.stretch(1, 1), help="save it as UTF-8"
        )
    body = content.removeprefix(_BOM)
    try:
        source = Source(name, body.decode(), hidden)
    except UnicodeDecodeError as error:
        offset = error.start + len(content) - len(body)
        source = Source(name, body.decode("utf-8", "replace"), hidden)
        message = f"byte 0x{body[error.start]:02x} at offset {offset:,} is not UTF-8"
        where = source.stretch(*source.place_at(len(body[: error.start].decode())))
        return source, Fault("DM002", message, where, help="save the file as UTF-8")
    match = FORBIDDEN.search(source.text)
    if match is None:
        return source, None
    message = f"the character {character_name(match[0])} is not allowed in a config"
    return source, Fault("DM003", message, source.stretch(*source.place_at(match.start())), help="remove it")


def character_name(character: str) -> str:
    """Return how messages name a character that cannot be shown.

    Its code point, and what it is if many files have it.
    """
    code = ord(character)
    return f"U+{code:04X} ({_NAMES[code]})" if code in _NAMES else f"U+{code:04X}"
