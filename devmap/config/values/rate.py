"""Rates and times of a network as people write them: `50GB/s`, `400Gbit/s`, `5us`."""

from __future__ import annotations

import re

from devmap.config.values.size import format_bytes, parse_size
from devmap.config.values.words import shown

__all__ = ["format_rate", "parse_rate", "parse_seconds"]

_BITS = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?P<unit>[KMGT])bit/s\Z")
_SCALES = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SECONDS = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(?P<unit>ns|us|ms|s)\Z")
_PER_SECOND = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}
_LONGEST_SECONDS = 60.0


def parse_rate(value: object) -> float:
    """Parse a rate: a number of bytes a second, a size with `/s`, or bits a second as networks are sold.

    >>> parse_rate("50GB/s"), parse_rate("25Gbit/s"), parse_rate(5e9)
    (50000000000.0, 3125000000.0, 5000000000.0)

    Raises:
        ValueError: with a sentence for people.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < float("inf"):
            return float(value)
        msg = f"a rate is more than 0 bytes a second, found {shown(value)}"
        raise ValueError(msg)
    if isinstance(value, str):
        text = value.strip()
        bits = _BITS.match(text)
        if bits is not None:
            rate = float(bits["number"]) * _SCALES[bits["unit"]] / 8
        elif text.endswith("/s"):
            rate = float(parse_size(text.removesuffix("/s").strip()))
        else:
            rate = 0.0
        if rate:
            return rate
    msg = f"{shown(value)} is not a valid rate; write it as 50GB/s or 400Gbit/s, or in bytes a second"
    raise ValueError(msg)


def format_rate(rate: float) -> str:
    """Return a rate in bytes a second for people.

    >>> format_rate(3.125e9)
    '3.1 GB/s'
    """
    return f"{format_bytes(int(rate))}/s"


def parse_seconds(value: object) -> float:
    """Parse a short time: a number of seconds, or a number with `ns`, `us`, `ms` or `s`; a minute at most.

    >>> parse_seconds("5us"), parse_seconds("1.5 ms"), parse_seconds(0)
    (5e-06, 0.0015, 0.0)

    Raises:
        ValueError: with a sentence for people.
    """
    seconds = -1.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (found := _SECONDS.match(value.strip())) is not None:
        seconds = float(found["number"]) / _PER_SECOND[found["unit"]]
    if 0 <= seconds <= _LONGEST_SECONDS:
        return seconds
    msg = f"{shown(value)} is not a valid latency; write it as 5us, 1.5ms or 0, and as a minute at most"
    raise ValueError(msg)
