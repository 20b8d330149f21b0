"""`devmap validate --add-ignores`: what is there today is ignored, what comes is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devmap.api.checks.ignoring import add_ignores
from devmap.config.document import load_document
from tests.cli.test_commands import EXAMPLES, devmap_command

TEXT = """\
version: 1
model: {manifest: m.manifest.yaml}
max_memory: {0: 1GB, cpu: 1GB}   # two devices
device_map:
  nosuch.one: 0
  nosuch.two: 0  # devmap: ignore[DM204] it is tied
  "": auto
no_split_module_classes: ["No
  Such"]
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(EXAMPLES / "all-minilm-l6-v2.manifest.yaml", tmp_path / "m.manifest.yaml")
    (tmp_path / "x.devmap.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.devmap.yaml"


def test_every_line_with_a_finding_gets_its_comment_and_says_what_it_said(config: Path) -> None:
    before = load_document(config).data
    done = add_ignores("x.devmap.yaml", "older than the gate")
    lines = config.read_text().splitlines()
    assert lines[4] == "  nosuch.one: 0  # devmap: ignore[DM201] older than the gate"
    assert "ignore[DM204, DM201] it is tied" in lines[5]
    assert lines[7] == 'no_split_module_classes: ["No'  # no comment can stand inside a text
    assert load_document(config).data == before
    assert done.added == 2
    assert [finding.code for finding in done.after.findings if finding.suppressed is None] == [
        "DM901",  # that of DM204 was there before, and ignores nothing
        "DM208",
    ]


def test_a_second_call_changes_nothing_and_what_is_new_is_found(config: Path) -> None:
    config.write_text(TEXT.partition("no_split")[0])
    assert devmap_command("validate", ".", "--add-ignores", "older than the gate").status == 0
    once = config.read_bytes()
    assert devmap_command("validate", ".", "--add-ignores", "again").status == 0
    assert config.read_bytes() == once
    config.write_text(config.read_text() + "  nosuch.four: 0\n")
    assert devmap_command("validate", ".").status == 1


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    "arguments",
    [(".", "--add-ignores", " "), (".", "--add-ignores", "a # b"), (".", "--fix", "--add-ignores", "x")],
)
def test_a_reason_is_words_on_one_line(arguments: tuple[str, ...]) -> None:
    assert devmap_command("validate", *arguments).status == 2
    assert Path("x.devmap.yaml").read_text() == TEXT
