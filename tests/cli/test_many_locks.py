"""`devmap resolve --lock` and `--check` over many configs with profiles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devmap.api.locks.lock_files import LockState, lock_files
from tests.cli.test_commands import EXAMPLES, devmap_command

BASE = "abstract: true\nversion: 1\nmodel: {manifest: m.manifest.yaml}\nmax_memory: {0: 1GB, cpu: 1GB}\n"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, a child with a profile, and a child in a folder of its own."""
    shutil.copy(EXAMPLES / "all-minilm-l6-v2.manifest.yaml", tmp_path / "m.manifest.yaml")
    (tmp_path / ".git").mkdir()
    (tmp_path / "team").mkdir()
    (tmp_path / "base.devmap.yaml").write_text(BASE)
    (tmp_path / "x.devmap.yaml").write_text(
        "extends: base.devmap.yaml\nprofiles: {small: {max_memory: {0: 60MB}}}\n"
    )
    (tmp_path / "team" / "y.devmap.yaml").write_text("extends: ../base.devmap.yaml\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def locks(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.lock.yaml"))


def test_one_call_locks_every_config_and_profile_and_a_check_agrees(repo: Path) -> None:
    assert devmap_command("resolve", "--check", ".").status == 1
    assert locks(repo) == []
    assert devmap_command("resolve", "--lock", ".").status == 0
    assert locks(repo) == ["team/y.devmap.lock.yaml", "x.devmap.lock.yaml", "x.small.devmap.lock.yaml"]
    assert devmap_command("resolve", "--check", "x.devmap.yaml", "team").status == 0
    assert devmap_command("validate", "--locked", ".").status == 0
    assert [each.state for each in lock_files(".")] == [LockState.UNCHANGED] * 3


@pytest.mark.usefixtures("repo")
def test_an_edit_in_a_base_makes_the_locks_of_its_children_stale(capfd: pytest.CaptureFixture[str]) -> None:
    devmap_command("resolve", "--lock", ".", "-q")
    Path("base.devmap.yaml").write_text(BASE.replace("0: 1GB", "0: 70MB"))
    assert [each.state for each in lock_files(".", check=True)] == [
        LockState.STALE,
        LockState.STALE,
        LockState.UNCHANGED,  # its profile has a budget of its own
    ]
    capfd.readouterr()
    assert devmap_command("resolve", "--check", ".").status == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("repo")
def test_what_does_not_fit_keeps_no_other_config_from_its_lock() -> None:
    Path("team/y.devmap.yaml").write_text("extends: ../base.devmap.yaml\nmax_memory: {0: 1MB, cpu: 1MB}\n")
    states = {(each.config, each.profile): each.state for each in lock_files(".")}
    assert states == {
        ("x.devmap.yaml", None): LockState.WRITTEN,
        ("x.devmap.yaml", "small"): LockState.WRITTEN,
        ("team/y.devmap.yaml", None): LockState.FAILED,
    }
    assert devmap_command("resolve", "--lock", ".").status == 1


@pytest.mark.usefixtures("repo")
def test_a_check_compares_with_the_devices_that_the_lock_fixes() -> None:
    Path("x.devmap.yaml").write_text(
        "version: 1\nmodel: {manifest: m.manifest.yaml}\nmachine: 2x4090\n",
    )
    assert devmap_command("resolve", "--lock", "x.devmap.yaml").status == 0
    text = Path("x.devmap.yaml").read_text().replace("machine: 2x4090\n", "")
    Path("own.devmap.yaml").write_text(text)
    assert devmap_command("resolve", "--lock", "own.devmap.yaml").status == 0  # this machine's devices
    assert devmap_command("resolve", "--check", "own.devmap.yaml").status == 0
    Path("own.devmap.lock.yaml").write_text("version: 1\n")
    assert [each.state for each in lock_files("own.devmap.yaml", check=True)] == [LockState.STALE]


@pytest.mark.usefixtures("repo")
def test_one_map_is_printed_at_a_time() -> None:
    assert devmap_command("resolve", "x.devmap.yaml", "team/y.devmap.yaml").status == 2
    assert devmap_command("resolve").status == 2
    assert devmap_command("resolve", "--check", "-o", "z.lock.yaml", "x.devmap.yaml").status == 2


@pytest.mark.usefixtures("repo")
def test_what_validate_refuses_is_not_locked() -> None:
    Path("x.devmap.yaml").write_text("extends: base.devmap.yaml\nno_split_module_classes: [BertLayr]\n")
    assert devmap_command("validate", "x.devmap.yaml").status == 1
    ((state, error),) = [(each.state, each.error) for each in lock_files("x.devmap.yaml")]
    assert state is LockState.FAILED
    assert error is not None
    assert [problem.code for problem in error.problems] == ["DM208"]
    assert locks(Path()) == []
