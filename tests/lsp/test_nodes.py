"""What an editor offers and tells in a config for several nodes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from devmap.lsp.cursor import cursor_at
from devmap.lsp.hover import hover_text
from devmap.lsp.proposals import proposals_at
from devmap.lsp.session import Session
from tests.validators.conftest import PACK

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.lsp.known import Known

CONFIG = """\
version: 1
model: {manifest: example.manifest.yaml}
machine:
  nodes: {a: 1xa100, b: {devices: {0: {memory: 4GB}, cpu: {memory: 8GB}}}}
  network: {bandwidth: 25Gbit/s}
max_memory: {0: 3GB, b/cpu: 1GB}
"""


def known(folder: Path, text: str) -> Known:
    shutil.copy(PACK / "example.manifest.yaml", folder)
    session = Session()
    session.open(folder / "x.devmap.yaml", text)
    return session.known(folder / "x.devmap.yaml")


def offered(found: Known, typed: str) -> list[str]:
    """What is offered at the end of a text that is being typed."""
    lines = typed.splitlines()
    cursor = cursor_at(lines, len(lines) - 1, len(lines[-1]))
    assert cursor is not None
    return [proposal.text for proposal in proposals_at(found, cursor)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("para", ["parallel"]),
        ("parallel: {", ["pipeline", "tensor", "schedule", "microbatches"]),
        ("profiles: {x: {parallel: {mic", ["microbatches"]),
        ("parallel: {schedule: ", ["gpipe", "1f1b"]),
        ("machine: {network: {", ["bandwidth", "latency"]),
        ("machine: {network: {bandwidth: ", []),
        ("machine: {nodes: {a: {", ["name", "devices", "network"]),
        ("machine: {nodes: {a: {network: {lat", ["latency"]),
        ("machine: {nodes: {a: {devices: {0: {mem", ["memory", "memory_bandwidth"]),
        ("machine: {nodes: {a: 2x40", ["2x4090"]),
        ("machine: {nodes: {a: {name: 2x40", ["2x4090"]),
        ("max_memory: {", ["0", "b/cpu", "a/0", "b/0"]),
        ("headroom: {a", ["a/0"]),
    ],
)
def test_keys_words_and_devices_of_several_nodes_are_offered(
    tmp_path: Path, typed: str, expected: list[str]
) -> None:
    assert offered(known(tmp_path, CONFIG), typed) == expected


def test_a_module_is_offered_the_devices_of_nodes_and_none_without_a_node(tmp_path: Path) -> None:
    found = offered(known(tmp_path, CONFIG), "device_map: {lm_head: ")
    assert found[:3] == ["a/0", "b/0", "b/cpu"]
    assert "0" not in found
    alone = CONFIG.replace("max_memory: {0: 3GB, b/cpu: 1GB}\n", "")
    assert offered(known(tmp_path, alone), "device_map: {lm_head: b") == [
        "b/0",
        "b/cpu",
        "balanced",
        "balanced_low_0",
    ]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("parallel",), "How the model is spread over the nodes"),
        (("parallel", "schedule"), "In which order a stage works on microbatches"),
        (("machine", "nodes"), "in the order of the pipeline"),
        (("machine", "nodes", "b", "devices"), "as the node itself calls them"),
        (("machine", "nodes", "b", "devices", "0", "memory"), "The device's whole memory"),
        (("machine", "network", "bandwidth"), "400Gbit/s"),
        (("max_memory", "b/cpu"), "- b/cpu: 0 B of weights of 1.0 GB"),
    ],
)
def test_a_hover_tells_what_a_key_of_several_nodes_means(
    tmp_path: Path, path: tuple[str, ...], told: str
) -> None:
    assert told in hover_text(known(tmp_path, CONFIG), path)


def test_a_budget_without_a_node_tells_of_the_device_on_every_node(tmp_path: Path) -> None:
    told = hover_text(known(tmp_path, CONFIG), ("max_memory", "0"))
    assert "- device a/0: " in told
    assert "- device b/0: " in told
