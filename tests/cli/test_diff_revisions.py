"""`devmap diff` of git revisions, in a real repository."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_commands import EXAMPLES, devmap_command

MANIFEST = "version: 1\nmodel: {manifest: m.manifest.yaml}\n"


def git(folder: Path, *arguments: str) -> None:
    known = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, env=os.environ | known | alone
    )


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A branch on which one lock changed, one is new, one is gone and one is as it was on main."""
    monkeypatch.chdir(tmp_path)
    manifest = (EXAMPLES / "all-minilm-l6-v2.manifest.yaml").read_bytes()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.manifest.yaml").write_bytes(manifest)
    for name in ("changed", "gone", "same"):
        (tmp_path / "models" / f"{name}.devmap.yaml").write_text(MANIFEST + "max_memory: {0: 1GB, 1: 1GB}\n")
    assert devmap_command("resolve", "--lock", "models", "-q").status == 0
    git(tmp_path, "init", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    git(tmp_path, "switch", "--create", "work")
    (tmp_path / "models" / "gone.devmap.yaml").unlink()
    (tmp_path / "models" / "gone.devmap.lock.yaml").unlink()
    (tmp_path / "models" / "changed.devmap.yaml").write_text(MANIFEST + "max_memory: {0: 60MB, 1: 1GB}\n")
    (tmp_path / "models" / "new.devmap.yaml").write_text(MANIFEST + "max_memory: {0: 1GB}\n")
    assert devmap_command("resolve", "--lock", "models", "-q").status == 0
    return tmp_path


def test_a_lock_is_compared_with_itself_at_a_revision(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = "models/changed.devmap.lock.yaml"
    outcome = devmap_command("diff", f"HEAD:{lock}", lock)
    assert outcome.status == 0
    assert "device 0 -> device 1" in outcome.stdout
    assert devmap_command("diff", f"HEAD:{lock}", lock, "--exit-code").status == 1
    assert devmap_command("diff", lock, lock, "--exit-code").status == 0
    monkeypatch.chdir(repo / "models")
    assert devmap_command("diff", "HEAD:changed.devmap.lock.yaml", f"main:{lock}", "--exit-code").status == 0


@pytest.mark.usefixtures("repo")
def test_every_lock_that_changed_since_a_base_is_told() -> None:
    document = json.loads(devmap_command("diff", "--base", "main", "--format", "json").stdout)
    assert [(each["file"], each["state"]) for each in document["diffs"]] == [
        ("models/changed.devmap.lock.yaml", "changed"),
        ("models/gone.devmap.lock.yaml", "removed"),
        ("models/new.devmap.lock.yaml", "new"),
    ]
    assert document["diffs"][0]["diff"]["moves"]
    markdown = devmap_command("diff", "--base", "main", "--format", "markdown").stdout
    assert "### `models/changed.devmap.lock.yaml`\n\n| moves | from | to | size |" in markdown
    assert devmap_command("diff", "--base", "main", "--exit-code").status == 1
    text = devmap_command("diff", "--base", "main", "models/same.devmap.lock.yaml", "--exit-code")
    assert (text.status, text.stdout) == (0, "no lock differs from main\n")


def test_what_main_got_after_the_branch_left_it_is_no_change_of_the_branch(repo: Path) -> None:
    git(repo, "add", ".")
    git(repo, "commit", "-m", "work")
    git(repo, "switch", "main")
    (repo / "models" / "same.devmap.lock.yaml").unlink()
    git(repo, "commit", "-am", "later")
    git(repo, "switch", "work")
    document = json.loads(devmap_command("diff", "--base", "main", "models", "--format", "json").stdout)
    assert "models/same.devmap.lock.yaml" not in [each["file"] for each in document["diffs"]]


@pytest.mark.usefixtures("repo")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--base", "no-such-branch"),
        ("--base", "--output=x"),
        ("HEAD:models/none.devmap.lock.yaml", "models/same.devmap.lock.yaml"),
        ("HEAD:models/same.devmap.yaml", "models/same.devmap.yaml"),
        ("nowhere:models/same.devmap.lock.yaml", "models/same.devmap.lock.yaml"),
        ("models/same.devmap.lock.yaml",),
        ("--base", "main", "--html", "x.html"),
    ],
)
def test_what_git_does_not_have_could_not_be_compared(arguments: tuple[str, ...]) -> None:
    outcome = devmap_command("diff", *arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert not Path("x.html").exists()


def test_without_a_repository_there_are_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert devmap_command("diff", "--base", "main").status == 2
