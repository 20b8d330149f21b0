from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from devmap.cli.exits import FINDINGS, INTERRUPTED, OK, UNABLE, guarded
from devmap.errors import ConfigError, ResolutionError, UsageError


def raising(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("no such file"), UNABLE),
        (ConfigError("2 problems"), FINDINGS),
        (ResolutionError("does not fit"), FINDINGS),
        (click.UsageError("no such option"), UNABLE),
        (KeyboardInterrupt(), INTERRUPTED),
        (click.exceptions.Abort(), INTERRUPTED),
        (click.exceptions.Exit(0), OK),
        (RuntimeError("boom"), UNABLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_status(error: BaseException, status: int) -> None:
    assert guarded(lambda: raising(error)) == status


def test_the_status_of_a_command_is_kept() -> None:
    assert guarded(lambda: 1) == 1
    assert guarded(lambda: None) == OK


def test_an_error_says_what_is_wrong_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(
        lambda: raising(
            ResolutionError("the plan lacks 3 bytes", help="offer a disk", changes=["max_memory.0: 23GB"])
        )
    )
    assert (
        capsys.readouterr().err
        == "error: the plan lacks 3 bytes\n  fits with: max_memory.0: 23GB\nhelp: offer a disk\n"
    )


def test_a_bug_is_reported_as_one_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEVMAP_DEBUG", raising=False)
    guarded(lambda: raising(RuntimeError("boom")))
    shown = capsys.readouterr().err
    assert "this is a bug in devmap: RuntimeError: boom" in shown
    assert "Traceback" not in shown


def test_a_bug_shows_its_traceback_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVMAP_DEBUG", "1")
    guarded(lambda: raising(RuntimeError("boom")))
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["rules"], ["--help"], ["schema"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_the_output_is_said(command: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "devmap", *command],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        2,
        b"error: the output cannot be written: No space left on device\n",
    )


def test_a_failing_file_that_is_no_output_is_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(lambda: raising(OSError(errno.ENOSPC, "No space left on device")))
    assert "this is a bug in devmap: OSError" in capsys.readouterr().err
