"""What devices may hold: `max_memory`, shares of a machine's memory, headroom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.config.device import parse_device
from devmap_validators.capacity import capacity, headroom, machine_memory

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
MACHINE = "machine: {devices: {0: {memory: 4GB}, 1: {memory: 8GB}, cpu: {memory: 16GB}}}\n"


@pytest.mark.parametrize(
    ("text", "device", "bytes_", "kept"),
    [
        ("max_memory: {0: 2GB}\n", "0", 2_000_000_000, 0),
        ("max_memory: {0: 2GB}\n", "1", None, 0),
        ("max_memory: {0: 2GB}\nheadroom: 10%\n", "0", 2_000_000_000, 200_000_000),
        ("max_memory: {0: 2GB, cpu: 2GB}\nheadroom: 10%\n", "cpu", 2_000_000_000, 0),
        ("max_memory: {0: 2GB, 1: 2GB}\nheadroom: {1: 300MB}\n", "0", 2_000_000_000, 0),
        ("max_memory: {0: 2GB, 1: 2GB}\nheadroom: {1: 300MB}\n", "1", 2_000_000_000, 300_000_000),
        ("max_memory: {0: 50%}\n", "0", None, 0),
        (f"max_memory: {{0: 50%}}\n{MACHINE}", "0", 2_000_000_000, 300_000_000),
        (f"max_memory: {{1: 50%}}\nheadroom: 0%\n{MACHINE}", "1", 4_000_000_000, 0),
        (MACHINE, "1", 8_000_000_000, 1_200_000_000),
        (MACHINE, "cpu", 16_000_000_000, 0),
        (MACHINE, "2", None, 0),
    ],
)
def test_a_budget_and_what_stays_free_of_it(text: str, device: str, bytes_: int | None, kept: int, context_of: ContextOf) -> None:
    context = context_of(HEAD + text)
    assert capacity(context, parse_device(device)) == bytes_
    assert headroom(context, parse_device(device)) == kept


def test_only_a_machine_says_how_much_memory_a_device_has(context_of: ContextOf) -> None:
    assert machine_memory(context_of(HEAD + "max_memory: {0: 2GB}\n"), parse_device(0)) is None
    assert machine_memory(context_of(HEAD + MACHINE), parse_device(0)) == 4_000_000_000
