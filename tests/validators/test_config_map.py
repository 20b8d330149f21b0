"""What a config says of devices and keys, and where in the document it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from devmap.config.values.device import parse_device
from devmap_validators.checks.config_map import device_path, devices_named, map_path, offered_devices, quoted

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
