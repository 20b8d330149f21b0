"""What devices may hold: `max_memory`, shares of a machine's memory, headroom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.values.device import parse_device
from devmap.config.yaml.writer import render_yaml
from devmap.planning.problem.budgets import budgets_of
from devmap_validators.checks.capacity import capacity, headroom, machine_memory
from devmap_validators.checks.config_map import offered_devices

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
MACHINE = (
    "machine: {devices: {0: {memory: 4GB}, 1: {memory: 8GB}, cpu: {memory: 16GB}, disk: {memory: 1GB}}}\n"
)


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
        # What one device is told to keep free says nothing of another.
        (f"headroom: {{1: 300MB}}\n{MACHINE}", "0", 4_000_000_000, 600_000_000),
        (
            f"max_memory: {{0: 50%, 1: 2GB}}\nheadroom: {{1: 300MB}}\n{MACHINE}",
            "0",
            2_000_000_000,
            300_000_000,
        ),
        # The folder of an offload may lie on any disk.
        (f"offload: {{folder: ./offload}}\n{MACHINE}", "disk", None, 0),
    ],
)
def test_a_budget_and_what_stays_free_of_it(
    text: str, device: str, bytes_: int | None, kept: int, context_of: ContextOf
) -> None:
    context = context_of(HEAD + text)
    assert capacity(context, parse_device(device)) == bytes_
    assert headroom(context, parse_device(device)) == kept


def test_only_a_machine_says_how_much_memory_a_device_has(context_of: ContextOf) -> None:
    assert machine_memory(context_of(HEAD + "max_memory: {0: 2GB}\n"), parse_device(0)) is None
    assert machine_memory(context_of(HEAD + MACHINE), parse_device(0)) == 4_000_000_000


SIZES = st.sampled_from(["1GB", "3GB", "5GB", "0%", "10%", "100%"])
DEVICES = st.sampled_from(["0", "1", "cpu", "disk"])
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "max_memory": st.dictionaries(DEVICES, SIZES, min_size=1, max_size=3),
        "headroom": st.one_of(SIZES, st.dictionaries(DEVICES, SIZES, max_size=2)),
        "offload": st.just({"folder": "./offload"}),
    },
)
FOUR = "{0: {memory: 4GB}, 1: {memory: 8GB}, cpu: {memory: 16GB}, disk: {memory: 32GB}}"


@given(spec=SPEC)
def test_the_checks_hold_a_device_for_as_large_as_the_resolver_does(
    context_of: ContextOf, spec: dict[str, Any]
) -> None:
    context = context_of(
        f"{HEAD}machine: {{devices: {FOUR}}}\n{render_yaml(spec)}"
        if spec
        else f"{HEAD}machine: {{devices: {FOUR}}}\n"
    )
    config = context.document.config
    assert config is not None
    budgets = budgets_of(config, context.machine)
    for budget in budgets:
        total = capacity(context, budget.device)
        assert total == budget.capacity
        assert min(headroom(context, budget.device), total or 0) == budget.headroom_bytes
    assert offered_devices(context) == frozenset(budget.device for budget in budgets)
