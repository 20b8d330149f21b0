"""A word for a rule that there is not is never taken in silence."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VALIDATORS = Path(__file__).parents[2] / "validators" / "devmap_validators"
POLICY = """\
version: 1
name: team
rules:
  - code: ACME001
    name: one-device
    message: one device only
    schema: {properties: {max_memory: {maxProperties: 1}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(VALIDATORS / "example.manifest.yaml", tmp_path)
    (tmp_path / "team.policy.yaml").write_text(POLICY, encoding="utf-8")
    text = (
        "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: "
        "{0: 3GB, 1: 3GB}\ndevice_map: balanced\n"
    )
    (tmp_path / "plain.devmap.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "team.devmap.yaml").write_text(text + "policies: [./team.policy.yaml]\n", encoding="utf-8")
    return tmp_path


def validate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devmap", "validate", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("option", ["--ignore", "--extend-select"])
def test_a_misspelt_code_of_a_policy_is_named_with_the_right_one(folder: Path, option: str) -> None:
    told = validate(folder, "plain.devmap.yaml", option, "PDR001")
    assert told.returncode == 0
    assert (
        "warning: no rule is called 'PDR001', and no policy of these configs has one: did you mean 'PRD001'?"
        in told.stderr
    )


def test_nothing_is_checked_under_a_name_that_means_nothing(folder: Path) -> None:
    told = validate(folder, "plain.devmap.yaml", "--select", "DM2,PDR001")
    assert told.returncode == 2
    assert "did you mean 'PRD001'?" in told.stderr
    assert told.stdout == ""


def test_a_code_of_a_policy_that_one_of_the_configs_names_is_known(folder: Path) -> None:
    assert "ACME001" in validate(folder, ".").stdout
    ignored = validate(folder, ".", "--ignore", "acme001", "--jobs", "2")
    assert (ignored.returncode, ignored.stderr) == (0, "")
    near = validate(folder, ".", "--ignore", "ACNE001")
    assert "did you mean 'ACME001'?" in near.stderr


def test_a_code_of_a_policy_that_comes_with_devmap_is_known_whoever_names_it(folder: Path) -> None:
    told = validate(folder, "plain.devmap.yaml", "--ignore", "PRD001,PRD")
    assert (told.returncode, told.stderr) == (0, "")


def test_what_is_not_utf_8_ends_no_command(folder: Path) -> None:
    """The example of DM002 holds a byte of another encoding.

    Strict streams, as in most locales, cannot say it.
    """
    command = [sys.executable, "-m", "devmap", "explain", "DM002"]
    told = subprocess.run(
        command, env={"PYTHONIOENCODING": "utf-8:strict"}, capture_output=True, check=False, cwd=folder
    )
    assert (told.returncode, told.stderr) == (0, b"")
    assert "caf?.manifest.yaml" in told.stdout.decode()
    (folder / "latin.devmap.yaml").write_bytes(b"version: 1\n# caf\xe9\n")
    validate(folder, "latin.devmap.yaml", "--format", "sarif", "--output-file", "log.sarif")
    assert "caf?.manifest.yaml" in (folder / "log.sarif").read_text(encoding="utf-8")
