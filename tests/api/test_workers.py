"""Several processes say what one says, in its order, and none outlives the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devmap.api.checks import workers
from devmap.api.checks.validation import validate
from devmap.api.checks.workers import in_workers, workers_for
from devmap.checking.settings import PathIgnore, Settings
from devmap.errors import UsageError

FAULTS = Path(__file__).parents[1] / "faults"
DEVMAP = [sys.executable, "-m", "devmap", "validate"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Broken configs by the dozen, with what they refer to."""
    copy = tmp_path / "faults"
    shutil.copytree(FAULTS, copy)
    return copy


@pytest.mark.parametrize("output_format", ["text", "json", "sarif", "github"])
def test_output_is_the_same_to_the_byte_with_one_process_and_with_three(
    folder: Path, output_format: str
) -> None:
    shown = [
        subprocess.run(
            [*DEVMAP, ".", "--format", output_format, "--jobs", jobs],
            cwd=folder,
            capture_output=True,
            check=False,
        )
        for jobs in ("1", "3")
    ]
    assert shown[0].stdout == shown[1].stdout
    assert len(shown[0].stdout) > 5_000
    assert [run.returncode for run in shown] == [1, 1]
    assert [run.stderr for run in shown] == [b"", b""]


def test_processes_that_are_no_copies_of_this_one_find_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    settings = Settings(per_path_ignores={"b*": PathIgnore(("DM2",))})
    files = sorted(path.name for path in folder.glob("b*.devmap.yaml"))
    alone = validate(files, settings=settings)
    monkeypatch.setattr(workers, "_forks", lambda: False)
    assert validate(files, settings=settings, jobs=2) == alone
    assert alone.findings


def test_the_number_of_processes_follows_the_cores_and_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_cores", lambda: 8)
    monkeypatch.setattr(workers, "_forks", lambda: True)
    assert [workers_for(files, jobs=0) for files in (0, 1, 63, 64, 100, 10_000)] == [1, 1, 1, 2, 3, 8]
    assert [workers_for(files, jobs=4) for files in (1, 3, 100)] == [1, 3, 4]
    monkeypatch.setattr(workers, "_forks", lambda: False)
    assert [workers_for(files, jobs=0) for files in (100, 511, 512, 10_000)] == [1, 1, 2, 8]


def test_a_file_at_which_a_worker_fails_is_left_to_the_caller() -> None:
    files = [f"{number}" for number in range(12)]
    found = in_workers(files, _fails_at_5, count=3)
    assert found["4"] == 4
    assert "5" not in found
    assert set(files) - set(found) <= {"5", "8", "11"}, "only the rest of that worker's share is missing"


def _fails_at_5(file: str) -> int:
    if file == "5":
        raise ValueError(file)
    return int(file)


def test_a_file_that_cannot_be_read_is_the_same_error_with_one_process_and_with_three(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    files = [f"{number}.devmap.yaml" for number in range(9)]
    for file in files:
        Path(file).write_text("version: 1\n")
    for file in ("4.devmap.yaml", "7.devmap.yaml"):
        Path(file).unlink()
        Path(file).mkdir()
        monkeypatch.setattr("devmap.api.checks.validation.find_configs", lambda *_, **__: files)
    told = []
    for jobs in (1, 3):
        with pytest.raises(UsageError) as caught:
            validate(files, jobs=jobs)
        told.append(caught.value.message)
    assert told[0] == told[1]
    assert "4.devmap.yaml" in told[0]


def test_a_worker_that_dies_is_an_error_and_no_hang() -> None:
    with pytest.raises(UsageError, match=re.escape("a worker process was ended by signal 9")):
        in_workers([f"{number}" for number in range(9)], _dies_at_5, count=2)


def _dies_at_5(file: str) -> int:
    if file == "5":
        os.kill(os.getpid(), signal.SIGKILL)
    return int(file)


def test_an_interrupt_ends_the_command_with_130_and_leaves_no_process(folder: Path) -> None:
    for number in range(3_000):
        shutil.copy(folder / "half-covered.devmap.yaml", folder / f"copy-{number}.devmap.yaml")
    process = subprocess.Popen(
        [*DEVMAP, ".", "--jobs", "3"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_as_at_a_terminal,  # noqa: PLW1509 - this process has one thread
    )
    _wait_for(lambda: len(_members(process.pid)) == 4, "three workers and the command")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    shown, told = process.communicate(timeout=20)
    assert process.returncode == 130, told
    assert told.strip() == b"interrupted"
    assert shown == b""
    _wait_for(lambda: not _members(process.pid), "no process")


def _as_at_a_terminal() -> None:
    """What a shell starts in the background, these tests too, ignores interrupts, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_workers_end_soon_after_the_command_was_killed(folder: Path) -> None:
    for number in range(3_000):
        shutil.copy(folder / "half-covered.devmap.yaml", folder / f"copy-{number}.devmap.yaml")
    process = subprocess.Popen(
        [*DEVMAP, ".", "--jobs", "3"], cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    )
    _wait_for(lambda: len(_members(process.pid)) == 4, "three workers and the command")
    process.kill()
    process.wait()
    _wait_for(lambda: not _members(process.pid), "no process")


def _members(session: int) -> list[int]:
    """The living processes of a session."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True, check=False
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "Z" not in line.split()[1]]


def _wait_for(holds: object, what: str) -> None:
    assert callable(holds)
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, f"expected {what}"
        time.sleep(0.01)
