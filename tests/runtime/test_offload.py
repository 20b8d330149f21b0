"""The offload folder when something goes wrong.

A killed process, two at once, a full disk, a folder that cannot be written.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from devmap.errors import LoadError
from devmap.runtime.dispatch import dispatch
from devmap.runtime.storage import offload_folder as offload
from devmap.runtime.storage.weights import Weight

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_WRITE = """
import os, signal, sys
import torch
from safetensors.torch import load_file
from devmap.runtime.storage.offload_folder import write_block
from devmap.runtime.storage.weights import Weight
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
live = torch.arange(2500.0).view(50, 50)
write_block([Weight("w", (50, 50), torch.float32, "parameter", live=live)], sys.argv[1])
"""


def _weight() -> Weight:
    return Weight("w", (50, 50), torch.float32, "parameter", live=torch.arange(2500.0).view(50, 50))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".safetensors")


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_trusted(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _WRITE, str(tmp_path)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _names(tmp_path) == []
    assert len(list(tmp_path.iterdir())) == 1
    (written,) = offload.write_block([_weight()], str(tmp_path))
    assert _names(tmp_path) == [written.stored[0][0].file.name]


@pytest.mark.parametrize("made", [False, True])
def test_two_that_write_the_same_block_at_once_end_with_one_right_file(
    made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = _weight()
    if made:  # it is digested while it is written, and named afterwards
        weight = replace(weight, live=None, maker=_weight().value)
    name = "write_then_name" if made else "write_parts"
    meet = threading.Barrier(2)
    write = getattr(offload, name)

    def together(*arguments: Any) -> Any:
        meet.wait(10)
        return write(*arguments)

    monkeypatch.setattr(offload, name, together)
    threads = [threading.Thread(target=offload.write_block, args=([weight], str(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(offload, name, lambda *_: pytest.fail("it is there already, and right"))
    (found,) = offload.write_block([weight], str(tmp_path))
    assert found.stored == offload.write_block([_weight()], str(tmp_path))[0].stored


@pytest.mark.parametrize("call", ["fsync", "fdopen"])
def test_a_full_disk_is_said_leaves_no_file_and_the_module_as_it_was(
    call: str, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, *_: Any) -> None:
        if call == "fdopen":
            os.close(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    before = list(model.parameters())
    monkeypatch.setattr(f"devmap.config.atomic_files.os.{call}", full)
    with pytest.raises(LoadError, match="No space left"):
        dispatch(model, plan_of(model, lambda _: ("disk", "cpu"), offload_folder=str(tmp_path)))
    assert list(tmp_path.iterdir()) == []
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_loaded(
    tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    monkeypatch.setattr(
        "devmap.runtime.dispatch.load_residents", lambda *_, **__: pytest.fail("loading has begun")
    )
    monkeypatch.setattr(
        "devmap.runtime.preflight.os.access",
        lambda path, mode: str(path) != str(tmp_path) or not mode & os.W_OK,
    )
    for folder in (tmp_path, tmp_path / "to" / "be" / "made"):
        with pytest.raises(LoadError, match="cannot be written to"):
            dispatch(
                model,
                plan_of(
                    model, lambda path: ("disk" if path == "0" else "cpu", "cpu"), offload_folder=str(folder)
                ),
            )
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_converted_on_their_way_are_written_as_they_run(tmp_path: Path) -> None:
    values = torch.arange(200_000.0)
    weights = [Weight(f"w{at}", (200_000,), torch.bfloat16, "parameter", live=values + at) for at in range(3)]
    for weight in offload.write_block(weights, str(tmp_path)):
        (stored, _), at = weight.stored[0], int(weight.name[1:])
        content = load_file(stored.file)[weight.name]
        assert torch.equal(content, (values + at).to(torch.bfloat16))
