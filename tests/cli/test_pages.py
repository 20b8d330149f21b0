"""`--html` and `--format markdown` as a user calls them, and what a TAB offers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from devmap.cli.main import cli

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
LLAMA = str(EXAMPLES / "llama-3-70b.2x4090.devmap.yaml")


def call(*arguments: str) -> tuple[int, str, str]:
    outcome = CliRunner().invoke(cli, arguments, standalone_mode=False)
    status = outcome.return_value if isinstance(outcome.return_value, int) else 2
    return status, outcome.stdout, outcome.stderr or str(outcome.exception or "")


def test_plan_writes_a_page_and_says_where(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert call("plan", LLAMA, "--html", str(page)) == (0, "", f"wrote {page}\n")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    status, printed, _ = call("plan", LLAMA, "--html", "-")
    assert (status, printed) == (0, page.read_text(encoding="utf-8"))


def test_diff_writes_a_page(tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    status, _, said = call(
        "diff", LLAMA, str(EXAMPLES / "llama-3-70b.fastest.devmap.yaml"), "--html", str(page)
    )
    assert (status, said) == (0, f"wrote {page}\n")
    assert "What moves, between which devices" in page.read_text(encoding="utf-8")


def test_simulate_adds_memory_from_module_to_module(tmp_path: Path, minilm_folder: Path) -> None:
    config = tmp_path / "m.devmap.yaml"
    config.write_text(
        f"version: 1\nmodel: {{checkpoint: {minilm_folder}}}\ndevice_map: "
        f"auto\nmax_memory: {{0: 60MB, 1: 60MB}}\n",
        encoding="utf-8",
    )
    page = tmp_path / "sim.html"
    status, printed, _ = call("simulate", str(config), "--tokens", "64", "--html", str(page))
    assert status == 0
    assert "one pass fits on every device" in printed
    text = page.read_text(encoding="utf-8")
    assert "Memory over one pass, simulated" in text
    assert text.count('class="area-activations"') == 2


def test_what_cannot_be_shown_together_is_refused() -> None:
    refused = call("plan", LLAMA, "--html", "-", "--why", "lm_head")[2]
    assert "--why and --html each show something else" in refused
    assert "--why has no Markdown" in call("plan", LLAMA, "--format", "markdown", "--why", "lm_head")[2]


def offered(arguments: list[str], begun: str) -> list[tuple[str, str]]:
    found = ShellComplete(cli, {}, "devmap", "_DEVMAP_COMPLETE").get_completions(arguments, begun)
    return [(item.type, item.value) for item in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "llama-3-70b.2x4090.devmap.yaml",
        "llama-3-70b.2x4090.devmap.lock.yaml",
        "llama-3-70b.manifest.yaml",
    ):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_only_configs_are_offered_where_a_config_is_asked_for() -> None:
    assert offered(["plan"], "lla") == [("dir", "lla"), ("plain", "llama-3-70b.2x4090.devmap.yaml")]
    assert ("plain", "./llama-3-70b.2x4090.devmap.yaml") in offered(["plan"], "./")
    assert offered(["plan"], "mod") == [("dir", "mod")]
    assert ("plain", "llama-3-70b.2x4090.devmap.lock.yaml") in offered(["diff"], "llama")


@pytest.mark.usefixtures("folder")
def test_modules_profiles_and_machines_are_offered() -> None:
    config = "llama-3-70b.2x4090.devmap.yaml"
    assert offered(["plan", config, "--why"], "model.layers.7")[0] == ("plain", "model.layers.7")
    assert ("plain", "model.layers.0.mlp") in offered(["plan", config, "--why"], "model.layers.0.")
    assert offered(["plan", config, "--profile"], "") == [("plain", "laptop-ram")]
    assert offered(["plan", "absent.yaml", "--profile"], "") == []
    assert ("plain", "2x4090") in offered(["init", "x", "--machine"], "2x4")
