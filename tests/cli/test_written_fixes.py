"""Errors that say what to write: each message is followed by the fix, and `--fix` writes the sure ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from devmap.api.models.running import run
from devmap.errors import DeviceError
from tests.cli.test_commands import EXAMPLES, devmap_command

HEAD = "version: 1\nmodel: {manifest: m.manifest.yaml}\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLES / "all-minilm-l6-v2.manifest.yaml", tmp_path / "m.manifest.yaml")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version: 1\nmodel: m.manifest.yaml\n", "version: 1\nmodel: {manifest: m.manifest.yaml}\n"),
        (HEAD + "max_memory: 24GB\n", HEAD + "max_memory: {0: 24GB}\n"),
        (HEAD + "max_memory: '24 GiB'\n", HEAD + "max_memory: {0: '24 GiB'}\n"),
        (
            HEAD + "max_memory: {0: 1GB}\ndevice_map: {encoder.layer.0-3: 0, '': auto}\n",
            HEAD + "max_memory: {0: 1GB}\ndevice_map: {'encoder.layer[0-3]': 0, '': auto}\n",
        ),
    ],
)
def test_a_fix_is_shown_and_written(before: str, after: str) -> None:
    Path("x.devmap.yaml").write_text(before)
    assert devmap_command("validate", "x.devmap.yaml").status == 1
    assert devmap_command("validate", "x.devmap.yaml", "--fix").status == 0
    assert Path("x.devmap.yaml").read_text() == after


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1\nmodel: ./llama\n", "write {checkpoint: ./llama}"),
        ("version: 1\nmodel: mypkg.models:build\n", "write {factory: mypkg.models:build}"),
        (HEAD + "max_memory: {0: 24}\n", "this is 24 bytes; did you mean 24GB?"),
        (HEAD + "machine: 2x4091\n", "did you mean '2x4090'?"),
        (HEAD + "machine: gamer-pc\n", "presets are t4, v100-16gb"),
        (HEAD + "policies: [prodction]\n", "did you mean 'production'?"),
    ],
)
def test_a_message_says_what_to_write(text: str, words: str) -> None:
    Path("x.devmap.yaml").write_text(text)
    outcome = devmap_command("validate", "x.devmap.yaml", "--format", "json")
    assert outcome.status == 1
    (finding,) = json.loads(outcome.stdout)["findings"]
    shown = devmap_command("validate", "x.devmap.yaml").stdout
    assert words in shown or words in finding["help"]


def test_words_that_are_no_size_are_not_turned_into_a_mapping() -> None:
    Path("x.devmap.yaml").write_text(HEAD + "max_memory: lots\n")
    assert devmap_command("validate", "x.devmap.yaml", "--fix").status == 1
    assert Path("x.devmap.yaml").read_text() == HEAD + "max_memory: lots\n"


@pytest.mark.skipif(
    torch.accelerator.is_available(), reason="says what to do on a machine without accelerators"
)
def test_a_run_without_accelerators_points_to_simulated_ones(minilm_folder: Path) -> None:
    Path("x.devmap.yaml").write_text(
        f"version: 1\nmodel: {{checkpoint: {minilm_folder}}}\nmax_memory: {{0: 1GB}}\n"
    )
    with pytest.raises(DeviceError) as caught:
        run("x.devmap.yaml")
    assert "--simulated" in caught.value.help


def test_the_rules_of_a_policy_are_explained_by_its_name_or_path() -> None:
    built_in = devmap_command("explain", "production")
    assert built_in.status == 0
    assert "PRD001 no-disk (error)" in built_in.stdout
    Path("team.yaml").write_text(
        "version: 1\nname: team\nrules:\n  - {code: TEAM001, name: "
        "no-training, severity: error, over: config,\n"
        "     message: we do not train, schema: {properties: {workload: false}}}\n"
    )
    own = devmap_command("explain", "./team.yaml")
    assert own.status == 0
    assert own.stdout.startswith(
        "TEAM001 no-training (error)\n\nWe do not train\n\nIt is a rule of the policy 'team'."
    )
    Path("team.yaml").write_text("version: 1\nrules: 3\n")
    assert devmap_command("explain", "./team.yaml").status == 1
    assert devmap_command("explain", "no-such-thing").status == 2
