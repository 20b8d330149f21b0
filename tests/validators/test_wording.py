"""Sentences that rules share: devices, bytes, blocks and ties in words."""

from __future__ import annotations

import pytest

from devmap.config.values.device import CPU, DISK, device_name, parse_device
from devmap.config.values.strategy import Strategy
from devmap_validators.checks.wording import devices_in_words, exact_bytes

FIRST, SECOND = parse_device(0), parse_device(1)


@pytest.mark.parametrize(
    ("target", "words"), [(SECOND, "device 1"), (CPU, "cpu"), (DISK, "disk"), (Strategy.BALANCED, "balanced")]
)
def test_a_target_of_a_map_in_a_sentence(target: object, words: str) -> None:
    assert device_name(target) == words


def test_devices_stand_in_tier_order_each_once() -> None:
    assert devices_in_words([]) == "none"
    assert devices_in_words([DISK]) == "disk"
    assert devices_in_words([DISK, CPU, FIRST, SECOND, FIRST]) == "device 0, device 1, cpu and disk"
    assert (
        devices_in_words([parse_device(index) for index in (64, 9, 3)]) == "device 3, device 9 and device 64"
    )


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "1 byte"),
        (0, "0 bytes"),
        (999_999, "999,999 bytes"),
        (1_000_000, "1.0 MB"),
        (21_400_000_000, "21.4 GB"),
    ],
)
def test_few_bytes_are_said_exactly(count: int, words: str) -> None:
    assert exact_bytes(count) == words
