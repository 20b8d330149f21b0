"""Sizes as people write them: `20GB`, `1.5 GiB`, `90%`, a plain number of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import NewType

from devmap.config.values.words import shown

__all__ = ["Bytes", "Percent", "format_bytes", "parse_amount", "parse_size"]

Bytes = NewType("Bytes", int)
"""A whole number of bytes, never negative."""

_UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(?P<unit>[A-Za-z]{0,3})\Z")
_PERCENT = re.compile(r"(?P<number>[0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\Z")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Percent:
    """A share of a device's memory, from 0 to 100."""

    value: Decimal

    def of(self, total_bytes: int) -> Bytes:
        """Return this share of `total_bytes`, rounded down to a whole byte."""
        return Bytes(int(self.value * total_bytes / 100))

    def total_of(self, share_bytes: int) -> Bytes:
        """Return the least total of which this share is `share_bytes`; 0 for a share of nothing."""
        numerator, denominator = self.value.as_integer_ratio()
        return Bytes(-(-share_bytes * 100 * denominator // numerator) if numerator else 0)

    def __str__(self) -> str:
        return f"{self.value.normalize():f}%"


def parse_size(value: object) -> Bytes:
    """Parse a size in bytes: an int, or a number with a unit.

    `GB MB KB TB` are powers of ten, `GiB MiB KiB TiB` powers of two. Case does not matter but for one thing:
    a lower-case final `b` (`8gb`) reads as bits to some and as bytes to others, so it is refused with both
    readings.

    >>> parse_size("1.5 GiB")
    1610612736

    Raises:
        ValueError: with a sentence for people.
    """
    if isinstance(value, float):
        msg = f"{shown(value)} is not a whole number of bytes; add a unit such as GB"
        raise ValueError(msg)  # noqa: TRY004 - what pydantic turns into a located error
    if isinstance(value, bool) or not isinstance(value, int | str):
        msg = f"expected a size such as '20GB' or a whole number of bytes, found {shown(value)}"
        raise ValueError(msg)  # noqa: TRY004 - what pydantic turns into a located error
    if isinstance(value, int):
        if value < 0:
            msg = f"a size cannot be negative, found {value}"
            raise ValueError(msg)
        return _bounded(Decimal(value), str(value))
    text = value.strip()
    match = _SIZE.match(text)
    unit = match["unit"] if match else ""
    if text.startswith("-") and _SIZE.match(text[1:].lstrip()):
        msg = f"a size cannot be negative, found {shown(value)}"
        raise ValueError(msg)
    if match is None or (unit and unit.lower() not in _UNITS):
        msg = (
            f"{shown(value)} is not a valid size; expected a number with KB, MB, "
            "GB, TB, KiB, MiB, GiB or TiB, such as '20GB'"
        )
        raise ValueError(msg)
    if unit.endswith("b"):
        bits = _bounded(Decimal(match["number"]) * _UNITS[unit.lower()] / 8, text)
        proper = f"{match['number']}{unit[:-1].upper().replace('I', 'i')}B"
        msg = (
            f"{shown(value)} is ambiguous: {proper} in bytes, or {format_bytes(bits)} if "
            f"the lower-case 'b' means bits; write '{proper}'"
        )
        raise ValueError(msg)
    if not unit and "." in match["number"]:
        msg = f"{shown(value)} is not a whole number of bytes; add a unit such as GB"
        raise ValueError(msg)
    return _bounded(Decimal(match["number"]) * _UNITS[unit.lower() or "b"], text)


def parse_amount(value: object) -> Bytes | Percent:
    """Parse a size, or a share of a device's memory such as `90%`.

    Raises:
        ValueError: with a sentence for people.
    """
    if isinstance(value, Percent):
        return value
    if isinstance(value, str) and value.strip().endswith("%"):
        match = _PERCENT.match(value.strip())
        if match is None or Decimal(match["number"]) > 100:
            msg = f"{shown(value)} is not a valid percentage; expected 0% to 100%"
            raise ValueError(msg)
        return Percent(Decimal(match["number"]))
    return parse_size(value)


def format_bytes(count: int) -> str:
    """Return the bytes for people: powers of ten, one decimal.

    >>> format_bytes(21_400_000_000), format_bytes(999), format_bytes(999_960)
    ('21.4 GB', '999 B', '1.0 MB')
    """
    if abs(count) < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("KB", "MB", "GB", "TB"):
        amount /= 1000
        if round(abs(amount), 1) < 1000 or unit == "TB":
            return f"{amount:,.1f} {unit}"
    raise AssertionError


def _bounded(amount: Decimal, text: str) -> Bytes:
    if amount > _LARGEST:
        msg = f"{shown(text)} is larger than any device"
        raise ValueError(msg)
    return Bytes(int(amount))
