"""Configs for several nodes: what all rules together say of good ones, and that a fault is named once."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import devmap
from devmap.api.locks.lock_files import LockState, lock_files
from tests.validators.conftest import PACK

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
NODES = (
    "machine:\n"
    "  nodes:\n"
    "    a: {devices: {0: {memory: 4GB}, cpu: {memory: 16GB}, disk: {memory: 1TB}}}\n"
    "    b: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n"
    "  network: {bandwidth: 25Gbit/s, latency: 5us}\n"
)
GOOD = {
    "budgets and headroom by node": (
        f"{MODEL}{NODES}max_memory: {{0: 80%, a/cpu: 4GB, b/cpu: 4GB, b/1: 3GB}}\n"
        "headroom: {a/0: 10%, 1: 5%}\nforbid: {b/1: [model.embed_tokens], cpu: [lm_head]}\n"
        "device_map: balanced\nworkload: {batch_size: 6, sequence_length: 64}\n"
        "parallel: {pipeline: 3, microbatches: 3}\n"
    ),
    "presets by time": (
        f"{MODEL}machine: {{nodes: {{a: 1xa100, b: 1xa100}}, network: {{bandwidth: 25Gbit/s}}}}\n"
        "device_map: fastest\nworkload: {batch_size: 8, sequence_length: 64}\n"
        "parallel: {schedule: gpipe, microbatches: 8}\n"
    ),
    "a map by hand": (
        f"{MODEL}{NODES}max_memory: {{0: 3GB, 1: 3GB}}\n"
        "device_map: {'': a/0, 'model.layers[1-2]': b/0, model.layers.3: b/1, model.norm: b/1, lm_head: b/1}"
        "\n"
    ),
    "tiers of the nodes": (
        f"{MODEL}{NODES}max_memory: {{0: 1GB, 1: 1GB, a/cpu: 2GB, b/cpu: 2GB, a/disk: 9GB}}\n"
        "offload: {folder: ./offload}\n"
    ),
    "one node": (
        f"{MODEL}machine: {{nodes: {{a: {{devices: {{0: {{memory: 4GB}}, 1: {{memory: 4GB}}}}}}}}}}\n"
        "max_memory: {a/0: 2GB, a/1: 2GB}\n"
    ),
}
TWO = f"{MODEL}{NODES}max_memory: {{0: 3GB, 1: 3GB}}\n"
ONE_FAULT = {
    "a budget that no node has": (f"{MODEL}{NODES}max_memory: {{0: 3GB, 1: 3GB, 7: 3GB}}\n", "DM302", "'7'"),
    "forbid of a device that no node has": (f"{TWO}forbid: {{a/9: [lm_head]}}\n", "DM302", "a/9"),
    "a map to an absent node": (f"{TWO}device_map: {{'': auto, lm_head: c/0}}\n", "DM704", "lm_head"),
    "a map to an absent node's cpu": (f"{TWO}device_map: {{'': auto, lm_head: c/cpu}}\n", "DM704", "lm_head"),
    "a map to an accelerator of any node": (
        f"{TWO}device_map: {{'': auto, lm_head: 0}}\n",
        "DM704",
        "lm_head",
    ),
    "a tier that is not offered": (f"{TWO}device_map: {{'': auto, lm_head: a/disk}}\n", "DM304", "lm_head"),
    "headroom of an absent node": (f"{TWO}headroom: {{c/0: 5%}}\n", "DM704", "c/0"),
    "a strategy of one machine": (f"{TWO}device_map: balanced_low_0\n", "DM401", "device_map"),
    "stages that a map leaves out": (f"{TWO}device_map: a/0\n", "DM401", "device_map"),
    "a node without accelerators": (
        f"{MODEL}machine: {{nodes: {{a: {{devices: {{cpu: {{memory: 4GB}}}}}}}}}}\n",
        "DM704",
        "a",
    ),
    "pins that go back": (
        f"{TWO}device_map: {{'': auto, model.layers.0: b/0, lm_head: a/0}}\n",
        "DM707",
        "lm_head",
    ),
    "too little memory": (f"{MODEL}{NODES}max_memory: {{0: 300MB, 1: 300MB}}\n", "DM401", "max_memory"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PACK / "example.manifest.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(folder: Path, text: str, name: str = "x") -> list[tuple[str, str]]:
    path = folder / f"{name}.devmap.yaml"
    path.write_text(text)
    return [(each.code, str(each.path[-1]) if each.path else "") for each in devmap.validate(path).findings]


def lock(path: Path) -> None:
    assert [each.state for each in lock_files(path)] == [LockState.WRITTEN]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_config_has_no_finding(folder: Path, name: str) -> None:
    assert said(folder, GOOD[name]) == []


@pytest.mark.parametrize("name", ONE_FAULT)
def test_one_fault_is_named_by_one_rule_at_its_key(folder: Path, name: str) -> None:
    text, code, key = ONE_FAULT[name]
    assert said(folder, text) == [(code, key.strip("'"))]


def test_weights_that_are_all_on_a_nodes_cpu_leave_no_accelerator_empty(folder: Path) -> None:
    text = f"{MODEL}{NODES}max_memory: {{0: 400MB, 1: 400MB, cpu: 2GB}}\n"
    assert said(folder, text) == [("DM403", "max_memory")]


def test_a_profile_and_a_parent_change_nodes_and_microbatches(folder: Path) -> None:
    said(folder, GOOD["budgets and headroom by node"], "base")
    child = (
        "version: 1\nextends: base.devmap.yaml\nparallel: {pipeline: 4}\n"
        "machine: {nodes: {c: {devices: {0: {memory: 4GB}}}}}\n"
        "workload: {batch_size: 8}\n"
    )
    assert said(folder, f"{child}profiles: {{many: {{parallel: {{microbatches: 8}}}}}}\n") == [
        ("DM706", "microbatches"),
        ("DM709", "microbatches"),
    ]
    many = devmap.validate(folder / "x.devmap.yaml", profile="many")
    assert many.findings == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("25Gbit/s", "50Gbit/s"),
        ("microbatches: 3", "microbatches: 6"),
        ("pipeline: 3", "schedule: gpipe"),
        ("{a/0: 10%", "{a/0: 11%"),
    ],
)
def test_a_lock_is_stale_when_the_pipeline_is_another(folder: Path, old: str, new: str) -> None:
    text = GOOD["budgets and headroom by node"]
    assert said(folder, text) == []
    lock(folder / "x.devmap.yaml")
    assert said(folder, text) == []
    assert old in text
    assert [code for code, _ in said(folder, text.replace(old, new))] == ["DM501"]


def test_a_lock_whose_stages_were_edited_is_told(folder: Path) -> None:
    text = GOOD["budgets and headroom by node"]
    said(folder, text)
    lock(folder / "x.devmap.yaml")
    written = folder / "x.devmap.lock.yaml"
    written.write_text(written.read_text().replace("model.layers.1: 1", "model.layers.1: 0"))
    assert [code for code, _ in said(folder, text)] == ["DM502"]


def test_a_policy_names_devices_of_nodes(folder: Path) -> None:
    (folder / "own.yaml").write_text(
        "version: 1\nname: own\ndescription: What fits beside another job.\nrules:\n"
        "  - {code: OWN001, name: light, over: plan, message: b/1 holds too much, help: move some away,\n"
        "     schema: {properties: {accelerators: {properties: {b/1: {properties: {weight_bytes: "
        "{maximum: 10}}}}}}}}\n"
    )
    text = GOOD["budgets and headroom by node"]
    assert said(folder, f"{text}policies: [./own.yaml]\n") == [("OWN001", "b/1")]
    assert said(folder, f"{text}policies: [inference]\n") == []


@pytest.mark.parametrize("node", ["1xh1000", "{name: 1xh1000}"])
def test_an_unknown_preset_is_named_at_its_own_node(tmp_path: Path, node: str) -> None:
    shutil.copy(PACK / "example.manifest.yaml", tmp_path)
    path = tmp_path / "x.devmap.yaml"
    path.write_text(f"{MODEL}machine:\n  nodes:\n    a: 1xh100\n    b: {node}\n")
    found = devmap.validate(path).findings
    assert [(one.code, one.path) for one in found] == [("DM310", ("machine", "nodes", "b"))]
    assert "'1xh1000' is neither" in found[0].message
