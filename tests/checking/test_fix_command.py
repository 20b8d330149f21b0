"""`devmap validate --fix` and `--diff`, as a shell runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import devmap_validators
from devmap.cli.exits import guarded
from devmap.cli.validate_command import command

WRONG = (
    "version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memry: {0: 4GB}\nworkload: {batch_size: 0}\n"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Path(devmap_validators.__file__).with_name("example.manifest.yaml")
    (tmp_path / "example.manifest.yaml").write_bytes(manifest.read_bytes())
    (tmp_path / "a.devmap.yaml").write_text(WRONG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr."""
    with CliRunner().isolation() as (out, error, _):
        status = guarded(lambda: command.main(list(arguments), standalone_mode=False))
        return status, out.getvalue().decode(), error.getvalue().decode()


def test_fix_writes_and_shows_what_is_left() -> None:
    status, out, _ = run("--fix", ".")
    assert status == 1
    assert "DM107" in out
    assert "DM101" not in out
    assert out.endswith("1 error in 1 file\nfixed 1 problem in 1 file\n")
    assert Path("a.devmap.yaml").read_text(encoding="utf-8") == WRONG.replace("memry", "memory")


def test_fix_keeps_machine_output_clean() -> None:
    status, out, error = run("--fix", "--format", "concise", ".")
    assert status == 1
    assert [line.split(": ")[1] for line in out.splitlines()] == [
        "error[DM107] 'workload.batch_size' expects at least 1, found the number 0"
    ]
    assert error == "fixed 1 problem in 1 file\n"


def test_diff_shows_and_writes_nothing_and_has_the_status_of_what_is_there() -> None:
    status, out, error = run("--diff", "a.devmap.yaml")
    assert status == 1
    assert out.startswith("--- a/a.devmap.yaml\n+++ b/a.devmap.yaml\n@@ ")
    assert "-max_memry: {0: 4GB}\n+max_memory: {0: 4GB}\n" in out
    assert error == "would fix 1 problem in 1 file\n"
    assert Path("a.devmap.yaml").read_text(encoding="utf-8") == WRONG


def test_standard_input_has_no_file_to_mend() -> None:
    status, _, error = run("--fix", "-")
    assert status == 2
    assert "cannot be fixed in place" in error


@pytest.mark.parametrize("option", [("--fix",), ("--diff",), ("--add-ignores", "older than the gate")])
def test_a_file_that_is_not_utf_8_stays_as_it_is(option: tuple[str, ...]) -> None:
    wrong = b"max_memory: \xff\xff{0: 4GB}  # devmap: ignore[unmatched-kye]\n" + WRONG.encode()
    Path("a.devmap.yaml").write_bytes(wrong)
    status, _, error = run(*option, ".")
    assert status == 1
    assert "bug" not in error
    assert Path("a.devmap.yaml").read_bytes() == wrong
