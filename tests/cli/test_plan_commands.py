"""`devmap plan`, `devmap diff` and `devmap resolve` as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
CONFIG = """\
version: 1
model: {manifest: m.manifest.yaml}
device_map: balanced
max_memory: {0: 10GB, 1: 10GB}
profiles: {one: {max_memory: {0: 20GB, 1: 0}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(EXAMPLES / "llama-2-7b.manifest.yaml", tmp_path / "m.manifest.yaml")
    (tmp_path / "a.devmap.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


def devmap_in(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with its own encoding."""
    return subprocess.run(
        [sys.executable, "-m", "devmap", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_plan_explains_one_module(folder: Path) -> None:
    outcome = devmap_in(folder, "plan", "a.devmap.yaml", "--why", "model.layers.20")
    assert outcome.returncode == 0, outcome.stderr
    assert "It lives on device 1" in outcome.stdout
    assert "with 1.0 GB more" in outcome.stdout
    document = json.loads(
        devmap_in(folder, "plan", "a.devmap.yaml", "--why", "model.layers.20", "--format", "json").stdout
    )
    assert document["parts"][0]["home"] == 1


def test_plan_suggests_a_near_name_for_a_misspelt_module(folder: Path) -> None:
    outcome = devmap_in(folder, "plan", "a.devmap.yaml", "--why", "model.layer.20")
    assert outcome.returncode == 2
    assert "did you mean 'model.layers.20'?" in outcome.stderr


def test_plan_explains_a_module_of_a_model_that_does_not_fit(folder: Path) -> None:
    outcome = devmap_in(folder, "plan", "a.devmap.yaml", "--set", "max_memory={0: 4GB}", "--why", "lm_head")
    assert outcome.returncode == 1
    assert "there is no plan" in outcome.stdout
    assert "fits with: raise max_memory of device 0" in outcome.stdout


def test_plan_falls_back_to_ascii_where_the_encoding_has_no_blocks(folder: Path) -> None:
    outcome = devmap_in(folder, "plan", "a.devmap.yaml", PYTHONIOENCODING="ascii")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.isascii()
    assert "# weights" in outcome.stdout
    assert "█ weights" in devmap_in(folder, "plan", "a.devmap.yaml").stdout


@pytest.mark.parametrize("columns", ["60", "120"])
def test_plan_keeps_to_the_width_of_the_terminal(folder: Path, columns: str) -> None:
    outcome = devmap_in(folder, "plan", "a.devmap.yaml", COLUMNS=columns)
    assert max(map(len, outcome.stdout.splitlines())) <= int(columns)


def test_a_plan_as_json_is_a_side_of_a_diff(folder: Path) -> None:
    (folder / "before.json").write_text(
        devmap_in(folder, "plan", "a.devmap.yaml", "--format", "json").stdout, encoding="utf-8"
    )
    outcome = devmap_in(folder, "diff", "before.json", "a.devmap.yaml", "--profile-after", "one")
    assert outcome.returncode == 0, outcome.stderr
    assert "model.layers.16 to lm_head  device 1 -> device 0" in outcome.stdout
    assert devmap_in(folder, "diff", "before.json", "a.devmap.yaml").stdout.startswith("nothing moves")
    document = json.loads(
        devmap_in(folder, "diff", "before.json", "a.devmap.yaml", "--format", "json").stdout
    )
    assert document["moves"] == []


def test_a_lock_of_a_profile_has_the_profile_in_its_name(folder: Path) -> None:
    outcome = devmap_in(folder, "resolve", "a.devmap.yaml", "--profile", "one", "--lock")
    assert outcome.returncode == 0, outcome.stderr
    assert (folder / "a.one.devmap.lock.yaml").exists()
    assert not (folder / "a.devmap.lock.yaml").exists()
    assert devmap_in(folder, "validate", "a.devmap.yaml", "--profile", "one", "--locked").returncode == 0


def test_wishes_in_conflict_are_shown_by_their_keys(folder: Path) -> None:
    outcome = devmap_in(folder, "resolve", "a.devmap.yaml", "--set", "forbid={0: [lm_head], 1: [lm_head]}")
    assert outcome.returncode == 1
    assert "constraints in conflict: forbid.0 and forbid.1" in outcome.stderr
