"""What a config says of devices and keys, and where in the document it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devmap.config.values.device import parse_device
from devmap.config.yaml.writer import render_yaml
from devmap.planning.problem.budgets import budgets_of
from devmap_validators.checks.config_map import (
    capacity,
    device_path,
    devices_named,
    headroom,
    machine_memory,
    map_path,
    offered_devices,
    quoted,
)

if TYPE_CHECKING:
    from tests.validators.conftest import ContextOf


HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
MACHINE = (
    "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 9GB}, disk: {memory: 9GB}}}\n"
)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("max_memory: {0: 2GB}\n", {"0"}),
        (f"max_memory: {{1: 2GB, disk: 1GB}}\n{MACHINE}", {"1", "disk"}),
        ("max_memory: {0: 2GB}\noffload: {folder: ./offload}\n", {"0", "disk"}),
        (MACHINE, {"0", "1", "cpu"}),
        (MACHINE + "offload: {folder: ./offload}\n", {"0", "1", "cpu", "disk"}),
        ("machine: {devices: {0: {memory: 4GB}}}\n", {"0"}),
        ("machine: 9x9999\n", None),
        ("offload: {folder: ./offload}\n", None),
    ],
)
def test_offered_is_what_max_memory_names_or_the_machine_has_and_a_disk_that_is_a_folder(
    text: str, offered: set[str] | None, context_of: ContextOf
) -> None:
    expected = None if offered is None else {parse_device(name) for name in offered}
    assert offered_devices(context_of(HEAD + text)) == expected


def test_every_device_is_named_with_its_place(context_of: ContextOf) -> None:
    text = (
        "device_map: {'': auto, lm_head: 'cuda:2', model.norm: cpu}\nmax_memory: {'cuda:1': 1GB, 0: 1GB}\n"
        "forbid: {cpu: [lm_head], disk: [lm_head]}\n"
    )
    assert [(str(device), path) for device, path in devices_named(context_of(HEAD + text))] == [
        ("2", ("device_map", "lm_head")),
        ("cpu", ("device_map", "model.norm")),
        ("1", ("max_memory", "cuda:1")),
        ("0", ("max_memory", "0")),
        ("cpu", ("forbid", "cpu")),
        ("disk", ("forbid", "disk")),
    ]


def test_one_word_for_the_whole_map_is_pointed_at_as_it_stands(context_of: ContextOf) -> None:
    context = context_of(HEAD + "device_map: disk\n")
    assert map_path(context, "") == ("device_map",)
    assert [path for _, path in devices_named(context)] == [("device_map",)]
    assert map_path(context_of(HEAD), "") == ("device_map",)
    assert map_path(context_of(HEAD + "device_map: {'': 0}\n"), "") == ("device_map", "")


def test_a_device_is_found_however_it_is_spelt(context_of: ContextOf) -> None:
    context = context_of(HEAD + "max_memory: {gpu: 1GB, 'cuda:3': 1GB, 4: 1GB}\n")
    assert device_path(context, ("max_memory",), parse_device(3)) == ("max_memory", "cuda:3")
    assert device_path(context, ("max_memory",), parse_device(4)) == ("max_memory", "4")
    assert device_path(context, ("max_memory",), parse_device(5)) == ("max_memory",)
    assert device_path(context, ("headroom",), parse_device(4)) == ("headroom",)
    assert device_path(context_of(HEAD + "headroom: 5%\n"), ("headroom", "devices"), parse_device(4)) == (
        "headroom",
        "devices",
    )


def test_a_few_names_are_quoted_and_the_rest_counted() -> None:
    assert quoted(["a", "b", "c"]) == "'a', 'b', 'c'"
    assert quoted(["a", "b", "c", *"d" * 1200]) == "'a', 'b', 'c' and 1,200 more"


UNEQUAL_MACHINE = (
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
        (f"max_memory: {{0: 50%}}\n{UNEQUAL_MACHINE}", "0", 2_000_000_000, 300_000_000),
        (f"max_memory: {{1: 50%}}\nheadroom: 0%\n{UNEQUAL_MACHINE}", "1", 4_000_000_000, 0),
        (UNEQUAL_MACHINE, "1", 8_000_000_000, 1_200_000_000),
        (UNEQUAL_MACHINE, "cpu", 16_000_000_000, 0),
        (UNEQUAL_MACHINE, "2", None, 0),
        # What one device is told to keep free says nothing of another.
        (f"headroom: {{1: 300MB}}\n{UNEQUAL_MACHINE}", "0", 4_000_000_000, 600_000_000),
        (
            f"max_memory: {{0: 50%, 1: 2GB}}\nheadroom: {{1: 300MB}}\n{UNEQUAL_MACHINE}",
            "0",
            2_000_000_000,
            300_000_000,
        ),
        # The folder of an offload may lie on any disk.
        (f"offload: {{folder: ./offload}}\n{UNEQUAL_MACHINE}", "disk", None, 0),
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
    assert machine_memory(context_of(HEAD + UNEQUAL_MACHINE), parse_device(0)) == 4_000_000_000


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
