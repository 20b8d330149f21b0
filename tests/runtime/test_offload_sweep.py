"""What killed processes leave in the offload folder is removed; what living ones write there is not.

With real processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from devmap.config import atomic_files
from devmap.runtime.dispatch import dispatch
from devmap.runtime.storage import offload_folder as offload
from devmap.runtime.storage.weights import Weight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_HEAD = """
import os, signal, sys, time
import torch
from pathlib import Path
from devmap.config.atomic_files import sweep
from devmap.runtime.storage.offload_folder import write_block
from devmap.runtime.storage.weights import Weight

def weight(number):
    return Weight("w", (50, 50), torch.float32, "parameter", live=torch.full((50, 50), float(number)))
"""
_HELD = (
    _HEAD
    + """
sync = os.fsync
def wait(descriptor):
    print("writing", flush=True)
    sys.stdin.readline()
    sync(descriptor)
os.fsync = wait
write_block([weight(1)], sys.argv[1])
"""
)
_MANY = (
    _HEAD
    + """
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    sweep(Path(sys.argv[1]))
    write_block([weight(number)], sys.argv[1])
"""
)


def _run(program: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() in {"writing\n", "ready\n"}
    return process


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _end(process: subprocess.Popen[str]) -> int:
    process.communicate("\n", timeout=60)
    return process.returncode


def _temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".tmp"]


def test_what_a_killed_process_left_is_gone_at_the_next_use_of_the_folder(
    tmp_path: Path, plan_of: PlanOf, running: list[subprocess.Popen[str]]
) -> None:
    running.append(_run(_HELD, tmp_path))
    running[0].send_signal(signal.SIGKILL)
    running[0].wait()
    assert len(_temporaries(tmp_path)) == 1
    (tmp_path / "mine.tmp").write_text("a file of somebody else")
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    dispatch(model, plan_of(model, lambda _: ("disk", "cpu"), offload_folder=str(tmp_path)))
    assert _temporaries(tmp_path) == ["mine.tmp"]
    assert len([path for path in tmp_path.iterdir() if path.suffix == ".safetensors"]) == 2


def test_what_a_living_process_writes_stays_and_is_complete(
    tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    running += [_run(_HELD, tmp_path), _run(_HELD, tmp_path)]
    assert len(_temporaries(tmp_path)) == 2
    atomic_files.sweep(tmp_path)
    assert len(_temporaries(tmp_path)) == 2
    running[0].send_signal(signal.SIGKILL)
    running[0].wait()
    atomic_files.sweep(tmp_path)
    assert len(_temporaries(tmp_path)) == 1
    assert _end(running[1]) == 0
    assert _temporaries(tmp_path) == []
    weight = Weight("w", (50, 50), torch.float32, "parameter", live=torch.ones(50, 50))
    (written,) = offload.write_block([weight], str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [written.stored[0][0].file.name]


def test_processes_that_sweep_and_write_at_once_all_end_well(
    tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    running += [_run(_MANY, tmp_path) for _ in range(2)]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    deadline = time.monotonic() + 60
    while any(process.poll() is None for process in running) and time.monotonic() < deadline:
        atomic_files.sweep(tmp_path)
        time.sleep(0.001)
    assert [_end(process) for process in running] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 200


def test_a_temporary_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, first = atomic_files._lock, [True]

    def swept(descriptor: int, *, wait: bool) -> None:
        if wait and first:
            first.clear()
            for path in tmp_path.iterdir():
                path.unlink()
        lock(descriptor, wait=wait)

    monkeypatch.setattr(atomic_files, "_lock", swept)
    weight = Weight("w", (3,), torch.float32, "parameter", live=torch.ones(3))
    (written,) = offload.write_block([weight], str(tmp_path))
    assert not first
    assert written.stored[0][0].file.is_file()


def test_a_folder_that_is_not_there_yet_or_may_not_be_swept_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_files.sweep(tmp_path / "nowhere")
    (tmp_path / ".devmap-x.tmp").write_text("")

    def refused(*_: Any) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    atomic_files.sweep(tmp_path)
    assert _temporaries(tmp_path) == [".devmap-x.tmp"]
