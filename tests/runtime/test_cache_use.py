"""What streaming does to the page cache.

Nothing where the model fits, no flooding where it does not, direct reads on request.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from devmap.devices.backend import Memory
from devmap.errors import StreamError
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.runtime.dispatch import load_model
from devmap.runtime.storage.files import Files
from devmap.runtime.storage.page_cache import DIRECT, DirectReader
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime.conftest import PlanOf

_BLOCKS = 8
_BLOCK_BYTES = 4 * (64 * 64 + 64)
_X = torch.linspace(-1, 1, 128).view(2, 64)


def _net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(_BLOCKS))).eval()


def _load(folder: Path, plan_of: PlanOf, device: int | str, **figures: Any) -> Any:
    save_file(_net().state_dict(), folder / "m.safetensors")
    with torch.device("meta"):
        model = _net()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    return load_model(
        model,
        plan_of(inventory, lambda _: ("disk", device), host_memory_bytes=4 * _BLOCK_BYTES, **figures),
        inventory,
    )


def _passes(model: Any, count: int) -> None:
    """What was read ahead may carry the first."""
    for _ in range(count):
        model(_X)


def _read(files: Files, path: Path) -> bytes:
    buffer = bytearray(25)
    files.read_into(path, 15, [memoryview(buffer)])
    return bytes(buffer)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The stretches that the page cache was told to drop."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "devmap.runtime.storage.files.forget_cached", lambda _, offset, nbytes: found.append((offset, nbytes))
    )
    return found


@pytest.mark.parametrize("device", ["cpu", 0])
@pytest.mark.parametrize(("free_blocks", "forgotten"), [(100, 0), (4 + 5, 4), (4, 8), (0, 8)])
def test_only_what_the_page_cache_has_no_room_for_is_dropped_behind_the_reader(
    device: int | str,
    free_blocks: int,
    forgotten: int,
    tmp_path: Path,
    plan_of: PlanOf,
    monkeypatch: pytest.MonkeyPatch,
    dropped: list[tuple[int, int]],
) -> None:
    memory = Memory(total_bytes=1 << 40, free_bytes=free_blocks * _BLOCK_BYTES)
    monkeypatch.setattr("devmap.runtime.streaming.prepare.host_memory", lambda: memory)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, device)
        assert sum(block.home.forgets for block in model.devmap.blocks) == forgotten
        for _ in range(3):
            torch.testing.assert_close(model(_X), _net()(_X), atol=1e-6, rtol=1e-6)
        model.devmap.remove()
    assert bool(dropped) == bool(forgotten)
    assert len({offset for offset, _ in dropped}) <= forgotten


def test_bytes_are_gone_from_the_page_cache_behind_a_read_that_forgets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(1 << 20))
    advised: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *rest: advised.append(rest), raising=False)
    files = Files()
    buffer = bytearray(5000)
    files.read_into(path, 100, [memoryview(buffer)])
    assert not advised
    files.read_into(path, 100, [memoryview(buffer)], forget=True)
    assert advised == [(100, 5000, os.POSIX_FADV_DONTNEED)]
    assert files.requested_bytes == 10_000
    files.close()


@pytest.mark.skipif(
    not DIRECT,
    reason="without os.O_DIRECT (macOS, Windows) no DirectReader is ever made, and os.preadv may be missing",
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 40_000), data=st.data(), buffer=st.integers(1, 20_000))
def test_direct_reads_give_the_same_bytes_as_buffered_ones(
    size: int, data: st.DataObject, buffer: int, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    content = os.urandom(size)
    path.write_bytes(content)
    reader = DirectReader(buffer)
    descriptor = os.open(path, os.O_RDONLY)  # the arithmetic is the same, and every file system takes it
    try:
        for _ in range(3):
            offset = data.draw(st.integers(0, size + 10))
            lengths = data.draw(st.lists(st.integers(0, 9000), max_size=5))
            parts = [bytearray(length) for length in lengths]
            got = reader.read_into(descriptor, [memoryview(part) for part in parts], offset)
            want = content[offset : offset + sum(lengths)]
            assert got == len(want)
            assert b"".join(parts)[:got] == want
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("device", ["cpu", 0])
def test_a_model_streams_by_direct_reads_where_the_environment_asks_for_them(
    device: int | str,
    tmp_path: Path,
    plan_of: PlanOf,
    monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setenv("DEVMAP_DIRECT_READS", "1")
    monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, device)
        for _ in range(2):
            torch.testing.assert_close(model(_X), _net()(_X), atol=1e-6, rtol=1e-6)
        is_direct = model.devmap.engine.readers.files.is_direct
        assert is_direct is (not recwarn)  # where the file system under the tests refuses, it has said so
        file = tmp_path / "m.safetensors"
        content = file.read_bytes()
        with file.open("r+b") as opened:
            opened.truncate(len(content) // 2)
        with pytest.raises(StreamError, match="ends at byte"):
            _passes(model, 3)
        file.write_bytes(content)
        torch.testing.assert_close(model(_X), _net()(_X), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("call", ["open", "preadv"])
def test_a_file_system_that_refuses_direct_reads_gets_one_notice_and_buffered_ones(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_bytes(b"0123456789" * 1000)
    real_open, real_read, real_dup2 = os.open, os.preadv, os.dup2
    direct: set[int] = set()

    def opened(path: Any, flags: int, *rest: Any) -> int:
        if flags & DIRECT and call == "open":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = real_open(path, flags & ~DIRECT, *rest)
        if flags & DIRECT:
            direct.add(descriptor)
        return descriptor

    def read(descriptor: int, *rest: Any) -> int:
        if descriptor in direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real_read(descriptor, *rest)

    def duplicated(descriptor: int, onto: int, **options: Any) -> int:
        if (
            descriptor not in direct
        ):  # a descriptor that is used again has the flags of the file it is used for
            direct.discard(onto)
        return real_dup2(descriptor, onto, **options)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "dup2", duplicated)
    files = Files(direct=True)
    with pytest.warns(
        UserWarning, match=r"the file system of .* takes no direct reads; reading through the page cache"
    ) as said:
        got = [_read(files, path) for path in (*paths, *paths)]
    assert got == [b"5678901234567890123456789"] * 4
    assert len(said) == 1
    assert not files.is_direct
    files.close()
