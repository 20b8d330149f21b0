"""Durations for people: one unit for one duration, three digits."""

from __future__ import annotations

__all__ = ["format_duration"]


def format_duration(seconds: float) -> str:
    """Return a time for people, three digits.

    >>> format_duration(0.1182), format_duration(2.5), format_duration(-0.0000031)
    ('118 ms', '2.5 s', '-3.1 us')
    >>> format_duration(1234.5), format_duration(2e-8), format_duration(0)
    ('1,230 s', '20 ns', '0 s')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(seconds) >= scale:
            return f"{float(f'{seconds / scale:.3g}'):,g} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0 s"
