"""What of files outside a config's repository may be shown: that something is wrong, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from devmap.api.checks.validation import validate
from devmap.config.document import read_config
from devmap.config.repository import is_outside, repository_of
from devmap.errors import ConfigError
from devmap.report.formats.findings import FORMATS, render

MODEL = 'version: 1\nmodules: {"": M, a: Linear}\ntensors: {a.weight: "float32[2, 2]"}\n'
HEAD = "version: 1\nmodel: {manifest: m.manifest.yaml}\nmax_memory: {0: 1GB}\n"
SECRET = "hunter2-and-more"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a model, and beside it, outside, files with a secret."""
    folder = tmp_path / "repository"
    (folder / ".git").mkdir(parents=True)
    (folder / "m.manifest.yaml").write_text(MODEL)
    (tmp_path / "secret").write_text(f"{SECRET}:x:0:0\nmore: [\n")
    (tmp_path / "secret.yaml").write_text(f"token: {SECRET}\nmodel: {{checkpoint: 7}}\n")
    monkeypatch.chdir(folder)
    return folder


def test_the_repository_is_the_nearest_folder_with_git(repository: Path) -> None:
    (repository / "below").mkdir()
    assert repository_of(Path("below")) == repository
    assert not is_outside(repository / "below" / "x", Path("below"))
    assert is_outside(Path("../secret"), Path())


def test_a_link_out_of_the_repository_leads_outside(repository: Path) -> None:
    (repository / "inside.yaml").symlink_to("../secret.yaml")
    assert is_outside(Path("inside.yaml"), Path())


@pytest.mark.parametrize("secret", ["../secret", "../secret.yaml", "./inside.yaml"])
@pytest.mark.parametrize(
    "config",
    [
        HEAD + "extends: {}\n",
        HEAD + "machine: {}\n",
        HEAD + "policies: [{}]\n",
        "version: 1\nmodel: {{manifest: {}}}\nmax_memory: {{0: 1GB}}\n",
        "LOCK",
        "ITSELF",
    ],
)
def test_no_report_holds_what_a_file_outside_says(repository: Path, config: str, secret: str) -> None:
    (repository / "inside.yaml").symlink_to("../secret.yaml")
    path = repository / "x.devmap.yaml"
    if config == "LOCK":
        path.write_text(HEAD)
        (repository / "x.devmap.lock.yaml").symlink_to(secret)
    elif config == "ITSELF":
        path.symlink_to(secret)
    else:
        path.write_text(config.replace("{}", secret) if "{{" not in config else config.format(secret))
    result = validate([str(path)])
    assert any(finding.severity == "error" for finding in result.findings), result.findings
    for name in FORMATS:
        assert SECRET not in render(result.findings, name, files=result.files)
    if "extends" in config or config == "ITSELF":
        with pytest.raises(ConfigError) as caught:
            read_config(path)
        assert SECRET not in str(caught.value)


def test_a_parent_inside_is_shown_as_ever(repository: Path) -> None:
    (repository / "base.devmap.yaml").write_text("tokens: visible\n")
    (repository / "x.devmap.yaml").write_text(HEAD + "extends: base.devmap.yaml\n")
    result = validate(["x.devmap.yaml"])
    assert "tokens: visible" in render(result.findings)
