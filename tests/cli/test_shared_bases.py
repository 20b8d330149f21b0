"""Configs that share a base, as their users validate them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import devmap
from devmap.api.checks.children import with_children
from tests.cli.test_commands import EXAMPLES, devmap_command

BASE = "abstract: true\nversion: 1\nmax_memory:\n  0: 1MB\n  cpu: 2MB\n"
CHILD = "extends: ../base.devmap.yaml\nmodel: {manifest: ../m.manifest.yaml}\n"


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a shared base, the folders a and b of children, and a folder to stand in."""
    shutil.copy(EXAMPLES / "all-minilm-l6-v2.manifest.yaml", tmp_path / "m.manifest.yaml")
    for name in (".git", "a", "b", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "base.devmap.yaml").write_text(BASE)
    (tmp_path / "a" / "x.devmap.yaml").write_text(CHILD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: str) -> list[tuple[str, str, int, str]]:
    report = json.loads(devmap_command("validate", *arguments, "--format", "json").stdout)
    return [(f["code"], f["file"], f["start"]["line"], f["message"]) for f in report["findings"]]


@pytest.mark.usefixtures("repo")
def test_an_abstract_base_is_valid_by_itself_and_still_checked_for_what_it_says() -> None:
    assert devmap_command("validate", "base.devmap.yaml").status == 0
    Path("base.devmap.yaml").write_text(BASE.replace("2MB", "2mb"))
    assert [(code, line) for code, _, line, _ in found("base.devmap.yaml")] == [("DM104", 5)]


@pytest.mark.usefixtures("repo")
def test_a_base_without_a_model_is_valid_where_a_checked_config_extends_it() -> None:
    Path("base.devmap.yaml").write_text("version: 1\nmax_memory: {0: 20GB}\n")
    assert found(".") == []
    alone = devmap_command("validate", "base.devmap.yaml")
    assert alone.status == 1
    assert "'abstract: true' where others extend this file" in alone.stdout


@pytest.mark.usefixtures("repo")
def test_no_command_takes_an_abstract_base_for_a_config(capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("resolve", "plan"):
        outcome = devmap_command(command, "base.devmap.yaml")
        assert (outcome.status, outcome.stdout) == (2, "")
        assert "abstract" in capfd.readouterr().err


@pytest.mark.usefixtures("repo")
def test_being_abstract_is_not_inherited() -> None:
    Path("base.devmap.yaml").write_text(BASE.replace("1MB", "20GB"))
    assert devmap_command("resolve", "a/x.devmap.yaml").status == 0


def test_what_is_wrong_with_one_child_alone_is_told_at_its_extends(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "b" / "y.devmap.yaml").write_text(CHILD + "max_memory: {0: 20GB}\n")
    monkeypatch.chdir(repo / "elsewhere")
    ((code, file, line, _),) = found("..")
    assert (code, file, line) == ("DM401", "../a/x.devmap.yaml", 1)
    text = devmap_command("validate", "..").stdout
    assert "it stands in ../base.devmap.yaml:3:1" in text  # not ../a/../base.devmap.yaml


@pytest.mark.usefixtures("repo")
def test_a_child_suppresses_at_its_extends_what_its_base_brings() -> None:
    Path("a/x.devmap.yaml").write_text(
        CHILD.replace("yaml\n", "yaml  # devmap: ignore[DM401] the model shrinks next week\n", 1)
    )
    outcome = devmap_command("validate", ".")
    assert outcome.status == 0
    assert "1 ignored" in outcome.stdout


@pytest.mark.usefixtures("repo")
def test_one_edit_in_a_base_is_one_finding_with_the_children() -> None:
    for number in range(7):
        Path(f"b/{number}.devmap.yaml").write_text(CHILD)
    ((code, file, line, message),) = found(".")
    assert (code, file, line) == ("DM401", "base.devmap.yaml", 3)
    assert "in 8 configs that extend this file: a/x.devmap.yaml, b/0.devmap.yaml" in message
    assert message.endswith("and 3 more)")
    assert devmap_command("validate", ".", "--jobs", "2").status == 1


@pytest.mark.usefixtures("repo")
def test_a_fault_of_a_bases_own_text_is_told_once_however_many_extend_it() -> None:
    Path("b/y.devmap.yaml").write_text(CHILD)
    Path("base.devmap.yaml").write_text(BASE.replace("max_memory", "max_memry"))
    ((code, file, _, message),) = found(".")
    assert (code, file) == ("DM101", "base.devmap.yaml")
    assert "a/x.devmap.yaml, b/y.devmap.yaml" in message


def test_the_status_follows_the_settings_nearest_to_each_config(repo: Path) -> None:
    (repo / "b" / "devmap.toml").write_text("fail-on = 'never'\n")
    (repo / "b" / "y.devmap.yaml").write_text(CHILD)
    assert devmap_command("validate", "b").status == 0
    assert devmap_command("validate", "a", "b").status == 1
    (repo / "devmap.toml").write_text("ignore = ['DM401']\n")
    assert devmap_command("validate", "a", "b").status == 0
    assert [file for _, file, *_ in found("a", "b")] == ["b/y.devmap.yaml"]


def test_a_program_may_name_one_path(repo: Path) -> None:
    assert [finding.code for finding in devmap.validate(repo / "a").findings] == ["DM401"]
    assert devmap.validate("a", overrides={"max_memory.0": "20GB"}).findings == ()


def test_a_comment_without_a_reason_ignores_nothing_where_reasons_are_required(repo: Path) -> None:
    child = repo / "a" / "x.devmap.yaml"
    (repo / "devmap.toml").write_text("require-reasons = true\n")
    child.write_text(CHILD.replace("yaml\n", "yaml  # devmap: ignore[DM401]\n", 1))
    outcome = devmap_command("validate", ".")
    assert outcome.status == 1
    assert "lacks its reason" in outcome.stdout
    child.write_text(CHILD.replace("yaml\n", "yaml  # devmap: ignore[DM401] it shrinks\n", 1))
    assert devmap_command("validate", ".").status == 0


def test_the_children_of_a_changed_base_are_checked_with_it(repo: Path) -> None:
    (repo / "b" / "middle.devmap.yaml").write_text("extends: ../base.devmap.yaml\nabstract: true\n")
    (repo / "b" / "y.devmap.yaml").write_text(
        "extends: middle.devmap.yaml\nmodel: {manifest: ../m.manifest.yaml}\n"
    )
    (repo / "b" / "alone.devmap.yaml").write_text("version: 1\n")  # wrong, and none of the base's children
    assert found("base.devmap.yaml") == []
    ((code, file, _, message),) = found("base.devmap.yaml", "--children")
    assert (code, file) == ("DM401", "base.devmap.yaml")
    assert message.endswith("a/x.devmap.yaml, b/y.devmap.yaml)")
    assert with_children("b/middle.devmap.yaml") == ("b/middle.devmap.yaml", "b/y.devmap.yaml")
