"""The commands as a user calls them: output, files, exit statuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import devmap
from devmap.cli.exits import guarded
from devmap.cli.main import cli
from devmap.devices.backend import Memory
from devmap.devices.host_memory import host_memory

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

GOOD = """\
version: 1
model: {manifest: m.manifest.yaml}
device_map: balanced
max_memory: {0: 10GB, 1: 10GB}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a manifest and a good config."""
    shutil.copy(EXAMPLES / "llama-2-7b.manifest.yaml", tmp_path / "m.manifest.yaml")
    (tmp_path / "good.devmap.yaml").write_text(GOOD, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Outcome:
    """What a command did, its exit status as the shell would see it."""

    def __init__(self, result: Result, status: int) -> None:
        self.status = status
        self.stdout = result.stdout
        self.stderr = result.stderr


def devmap_command(*arguments: str, stdin: str | None = None) -> Outcome:
    runner = CliRunner()
    statuses: list[int] = []

    def invoke() -> Result:
        result = runner.invoke(cli, list(arguments), input=stdin, standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            statuses.append(guarded(lambda: _raise(result.exception)))
        else:
            statuses.append(result.return_value if isinstance(result.return_value, int) else result.exit_code)
        return result

    result = invoke()
    return Outcome(result, statuses[0])


def _raise(error: BaseException | None) -> object:
    assert error is not None
    raise error


# --- validate
# ---------------------------------------------------------------------------------------------------------


def test_validate_is_silent_about_a_good_config(folder: Path) -> None:
    assert devmap_command("validate", str(folder)).status == 0


def test_validate_shows_place_and_fix_of_a_misspelt_key(folder: Path) -> None:
    (folder / "bad.devmap.yaml").write_text(GOOD.replace("device_map", "devicemap"), encoding="utf-8")
    outcome = devmap_command("validate", "bad.devmap.yaml")
    assert outcome.status == 1
    assert "bad.devmap.yaml:3:1" in outcome.stdout
    assert "did you mean 'device_map'?" in outcome.stdout


# Stands in the folder.
def test_validate_reads_standard_input_under_a_name(folder: Path) -> None:  # noqa: ARG001
    outcome = devmap_command(
        "validate", "-", "--stdin-filename", "editor.devmap.yaml", "--format", "concise", stdin="version: 1\n"
    )
    assert outcome.status == 1
    assert outcome.stdout.startswith("editor.devmap.yaml:1:1: error[DM102]")


def test_validate_writes_json_to_a_file_and_text_to_the_screen(folder: Path) -> None:
    (folder / "bad.devmap.yaml").write_text("version: 1\n", encoding="utf-8")
    outcome = devmap_command(
        "validate", "bad.devmap.yaml", "--format", "json", "--output-file", "report.json"
    )
    assert outcome.status == 1
    assert "error[DM102" in outcome.stdout
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [finding["code"] for finding in report["findings"]] == ["DM102"]


@pytest.mark.parametrize("output_format", ["text", "concise", "json", "sarif", "junit", "github", "gitlab"])
def test_the_exit_status_is_the_same_in_every_format(folder: Path, output_format: str) -> None:
    (folder / "bad.devmap.yaml").write_text("version: 1\n", encoding="utf-8")
    assert devmap_command("validate", "bad.devmap.yaml", "--format", output_format).status == 1
    assert devmap_command("validate", "good.devmap.yaml", "--format", output_format).status == 0


def test_fail_on_never_reports_and_passes(folder: Path) -> None:
    (folder / "bad.devmap.yaml").write_text("version: 1\n", encoding="utf-8")
    outcome = devmap_command("validate", "bad.devmap.yaml", "--fail-on", "never")
    assert outcome.status == 0
    assert "DM102" in outcome.stdout


def test_nothing_to_check_is_status_2(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert devmap_command("validate", "empty").status == 2
    assert devmap_command("validate", "absent.devmap.yaml").status == 2
    assert devmap_command("validate").status == 2


def test_locked_asks_for_a_lock_and_accepts_a_fresh_one(folder: Path) -> None:
    assert devmap_command("validate", "good.devmap.yaml", "--locked").status == 1
    assert devmap_command("resolve", "good.devmap.yaml", "--lock").status == 0
    assert (folder / "good.devmap.lock.yaml").exists()
    assert devmap_command("validate", "good.devmap.yaml", "--locked").status == 0


def test_a_stale_lock_fails_under_locked(folder: Path) -> None:
    devmap_command("resolve", "good.devmap.yaml", "--lock")
    (folder / "good.devmap.yaml").write_text(GOOD.replace("balanced", "auto"), encoding="utf-8")
    outcome = devmap_command("validate", "good.devmap.yaml", "--locked")
    assert outcome.status == 1
    assert "DM5" in outcome.stdout


def test_an_override_is_validated_like_the_file(folder: Path) -> None:  # noqa: ARG001 - stands in the folder
    assert devmap_command("validate", "good.devmap.yaml", "--set", "max_memory.0=7gb").status == 1
    assert devmap_command("validate", "good.devmap.yaml", "--set", "nonsense").status == 2


# --- resolve, plan, diff
# ----------------------------------------------------------------------------------------------


def test_resolve_prints_a_map_that_covers_the_model(folder: Path) -> None:
    outcome = devmap_command("resolve", "good.devmap.yaml", "--format", "json")
    assert outcome.status == 0
    device_map = json.loads(outcome.stdout)
    devmap.check_device_map(devmap.Inventory.from_manifest(folder / "m.manifest.yaml"), device_map)
    assert set(device_map.values()) == {0, 1}


def test_resolve_prints_yaml_that_reads_back_as_the_same_map(folder: Path) -> None:
    as_json = json.loads(devmap_command("resolve", "good.devmap.yaml", "--format", "json").stdout)
    as_yaml = devmap_command("resolve", "good.devmap.yaml").stdout
    config = GOOD.replace(
        "device_map: balanced",
        "device_map:\n" + "".join(f"  {line}\n" for line in as_yaml.splitlines()).rstrip(),
    )
    (folder / "manual.devmap.yaml").write_text(config, encoding="utf-8")
    assert json.loads(devmap_command("resolve", "manual.devmap.yaml", "--format", "json").stdout) == as_json


def test_resolve_says_what_is_missing_when_nothing_fits(
    folder: Path,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = devmap_command(
        "resolve", "good.devmap.yaml", "--set", "max_memory.0=1GB", "--set", "max_memory.1=1GB"
    )
    assert outcome.status == 1
    assert "fits with" in capsys.readouterr().err


def test_resolve_writes_the_lock_where_it_is_told(folder: Path) -> None:
    assert devmap_command("resolve", "good.devmap.yaml", "-o", "elsewhere.lock.yaml").status == 0
    assert (folder / "elsewhere.lock.yaml").exists()


def test_plan_shows_devices_and_runs(folder: Path) -> None:  # noqa: ARG001 - stands in the folder
    outcome = devmap_command("plan", "good.devmap.yaml", "--color", "never")
    assert outcome.status == 0
    assert "model.embed_tokens to model.layers.15" in outcome.stdout


def test_diff_shows_what_moves_between_a_config_and_a_lock(folder: Path) -> None:
    devmap_command("resolve", "good.devmap.yaml", "--lock")
    (folder / "other.devmap.yaml").write_text(
        GOOD.replace("balanced", "auto").replace("10GB", "9GB"), encoding="utf-8"
    )
    outcome = devmap_command("diff", "good.devmap.lock.yaml", "other.devmap.yaml")
    assert outcome.status == 0
    assert "model.layers" in outcome.stdout


# --- inspect, init, rules, explain, schema
# ----------------------------------------------------------------------------


def test_inspect_shows_a_tree_and_writes_a_manifest(folder: Path, minilm_folder: Path) -> None:
    shown = devmap_command("inspect", str(minilm_folder))
    assert shown.status == 0
    assert "6 x BertLayer" in shown.stdout
    assert devmap_command("inspect", str(minilm_folder), "-o", "x.manifest.yaml").status == 0
    assert devmap.Inventory.from_manifest(folder / "x.manifest.yaml") == devmap.Inventory.from_checkpoint(
        minilm_folder
    )


def test_inspect_of_nothing_says_what_to_do(folder: Path) -> None:  # noqa: ARG001 - stands in the folder
    assert devmap_command("inspect", "./absent").status == 2


def test_init_writes_a_config_that_validates(folder: Path, minilm_folder: Path) -> None:
    outcome = devmap_command("init", str(minilm_folder), "-o", "new.devmap.yaml", "--machine", "2x4090")
    assert outcome.status == 0
    text = (folder / "new.devmap.yaml").read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=")
    assert devmap_command("validate", "new.devmap.yaml").status == 0
    assert devmap_command("init", str(minilm_folder), "-o", "new.devmap.yaml").status == 2


def test_init_for_this_machine_writes_a_config_that_validates_and_stays_the_same(
    folder: Path, minilm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = devmap_command("init", str(minilm_folder), "-o", "here.devmap.yaml")
    assert outcome.status == 0
    assert outcome.stderr.startswith("found BertModel, 90.")
    assert devmap_command("validate", "here.devmap.yaml").status == 0
    first = (folder / "here.devmap.yaml").read_bytes()
    full = Memory(total_bytes=host_memory().total_bytes, free_bytes=1)
    monkeypatch.setattr("devmap.devices.cpu.host_memory", lambda: full)  # another process took all of it
    assert devmap_command("init", str(minilm_folder), "-o", "here.devmap.yaml", "--force").status == 0
    assert (folder / "here.devmap.yaml").read_bytes() == first


def test_explain_takes_a_code_or_a_name_and_suggests_near_ones() -> None:
    by_code, by_name = devmap_command("explain", "DM201"), devmap_command("explain", "unmatched-key")
    assert by_code.status == by_name.status == 0
    assert by_code.stdout == by_name.stdout
    assert devmap_command("explain", "unmatched-kye").status == 2


def test_rules_lists_every_rule_once() -> None:
    listed = json.loads(devmap_command("rules", "--format", "json").stdout)
    codes = [rule["code"] for rule in listed]
    assert codes == sorted(set(codes))
    assert devmap_command("rules").stdout.count("\n") == len(codes)


def test_schema_is_the_published_file() -> None:
    published = json.loads((EXAMPLES.parent / "schema" / "devmap.schema.json").read_text(encoding="utf-8"))
    assert json.loads(devmap_command("schema").stdout) == published


# --- run


def test_run_loads_streams_and_prints_counters(minilm_folder: Path) -> None:
    outcome = devmap_command(
        "run",
        str(EXAMPLES / "all-minilm-l6-v2.devmap.yaml"),
        "--simulated",
        "--quiet",
        "--set",
        f"model.checkpoint={minilm_folder}",
    )
    assert outcome.status == 0
    assert "sim:0" in outcome.stdout
