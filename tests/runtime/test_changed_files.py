"""Checkpoint files that change while a model runs from them.

Right numbers or a clear error, never other weights.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from devmap.errors import StreamError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.runtime.dispatch import load_model
from devmap.runtime.storage.file_identity import Original
from devmap.runtime.storage.files import Files
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_X = torch.linspace(-1, 1, 64).view(2, 32)


def _net(seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(6))).eval()


@pytest.fixture(params=["mapped", "slots", "sim", "parts"])
def streamed(
    request: pytest.FixtureRequest, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    if request.param == "slots":
        monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
    save_file(_net().state_dict(), tmp_path / "m.safetensors")
    with torch.device("meta"):
        model = _net()
    inventory = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    device = 0 if request.param in {"sim", "parts"} else "cpu"
    figures = {"host_memory_bytes": 3000} if request.param == "parts" else {}
    with simulated_devices({0: "1MB"}), torch.no_grad():
        yield load_model(model, plan_of(inventory, lambda _: ("disk", device), **figures), inventory)


def _passes(model: Any, count: int = 3) -> list[torch.Tensor]:
    """What was read ahead before a change may carry the first pass."""
    return [model(_X) for _ in range(count)]


def _other(path: Path) -> bytes:
    file = path.parent / "other" / "m.safetensors"
    file.parent.mkdir()
    save_file(_net(4).state_dict(), file)
    return file.read_bytes()


def test_a_file_that_is_renamed_over_does_no_harm(streamed: Any, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    _passes(streamed)
    (tmp_path / "new").write_bytes(_other(file))
    (tmp_path / "new").replace(file)
    for got in _passes(streamed):
        torch.testing.assert_close(got, _net()(_X), atol=1e-6, rtol=1e-6)


def test_a_file_that_is_overwritten_in_place_raises_until_the_old_bytes_are_back(
    streamed: Any, tmp_path: Path
) -> None:
    file = tmp_path / "m.safetensors"
    old, new = file.read_bytes(), _other(file)
    _passes(streamed)
    with file.open("r+b") as opened:
        opened.write(new)
    for _ in range(2):
        with pytest.raises(
            StreamError, match=rf"{re.escape(str(file))}: the file has changed since the model was loaded"
        ):
            _passes(streamed)
    with file.open("r+b") as opened:
        opened.write(old)
    for got in _passes(streamed):
        torch.testing.assert_close(got, _net()(_X), atol=1e-6, rtol=1e-6)


def test_a_file_that_was_cut_short_and_replaced_by_another_model_is_not_taken_for_the_old_one(
    streamed: Any, tmp_path: Path
) -> None:
    file = tmp_path / "m.safetensors"
    old, new = file.read_bytes(), _other(file)
    _passes(streamed)
    with file.open("r+b") as opened:
        opened.truncate(len(old) // 2)
    with pytest.raises(StreamError, match=r"ends at byte|could not read"):
        _passes(streamed)
    for content, is_right in ((new, False), (old, True)):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(file)
        if is_right:
            for got in _passes(streamed):
                torch.testing.assert_close(got, _net()(_X), atol=1e-6, rtol=1e-6)
        else:
            with pytest.raises(StreamError, match="the file has changed"):
                _passes(streamed)


def test_a_file_that_is_touched_goes_on(streamed: Any, tmp_path: Path) -> None:
    _passes(streamed)
    os.utime(tmp_path / "m.safetensors")
    for got in _passes(streamed):
        torch.testing.assert_close(got, _net()(_X), atol=1e-6, rtol=1e-6)


def test_weights_that_stay_mapped_are_looked_at_once_a_pass(tmp_path: Path, plan_of: PlanOf) -> None:
    file, other = tmp_path / "m.safetensors", tmp_path / "streamed.safetensors"
    state = _net().state_dict()
    save_file({name: tensor for name, tensor in state.items() if name[0] != "5"}, file)
    save_file({name: tensor for name, tensor in state.items() if name[0] == "5"}, other)
    with torch.device("meta"):
        model: Any = _net()
    inventory = match_checkpoint(read_module(model), read_headers(tmp_path), model)
    load_model(
        model,
        plan_of(inventory, lambda path: ("disk", "cpu") if path[0] == "5" else ("cpu", "cpu")),
        inventory,
    )
    content = file.read_bytes()
    with torch.no_grad():
        assert torch.equal(model(_X), _net()(_X))
        with file.open("r+b") as opened:
            opened.write(content[:-64] + bytes(64))
        with pytest.raises(StreamError, match=rf"{re.escape(str(file))}: the file has changed"):
            model(_X)
        with file.open("r+b") as opened:
            opened.write(content)
        assert torch.equal(model(_X), _net()(_X))


def test_a_change_anywhere_in_a_small_file_and_of_the_size_in_any_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(100_000))
    with path.open("r+b") as file:
        original = Original(path, file.fileno())
        for place in (0, 5000, 99_999):
            os.pwrite(file.fileno(), b"\1", place)
            with pytest.raises(StreamError, match="has changed"):
                original.require(file.fileno())
            os.pwrite(file.fileno(), b"\0", place)
            original.require(file.fileno())
        file.seek(0, 2)
        file.write(b"more")
        file.flush()
        with pytest.raises(StreamError, match="it has 100,004 bytes now"):
            original.require(file.fileno())


def test_bytes_that_stood_in_the_file_for_the_time_of_one_read_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is right before and after the read: only its time of change tells."""
    path = tmp_path / "weights"
    right, wrong = b"r" * 5000, b"w" * 5000
    path.write_bytes(right)
    read, asked = os.preadv, []

    def preadv(descriptor: int, parts: list[memoryview], offset: int) -> int:
        asked.append(offset)
        if len(asked) == 1:
            path.write_bytes(wrong)
        got = read(descriptor, parts, offset)
        if len(asked) == 1:
            path.write_bytes(right)
            stamp = path.stat()
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns + 10**9))
        return got

    monkeypatch.setattr(os, "preadv", preadv)
    files = Files()
    files.watch(path)
    buffer = bytearray(4000)
    files.read_into(path, 1000, [memoryview(buffer)])
    files.close()
    assert buffer == b"r" * 4000
    assert asked == [1000, 1000]
