"""What `model.devmap.stats()` says, against what is known to have happened."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from devmap.devices.simulated import SimulatedBackend
from devmap.inventory.live.module import match_checkpoint, read_module
from devmap.inventory.stored.checkpoint import read_headers
from devmap.report.run import render_stats
from devmap.runtime.dispatch import load_model
from devmap.runtime.storage.files import Files
from devmap.runtime.storage.readers import Readers
from devmap.runtime.streaming import counters as counting
from devmap.runtime.streaming.counters import Counters, binding, bytes_from_disk
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.runtime.conftest import PlanOf

_BLOCKS = 5
_BLOCK_BYTES = 4 * (32 * 32 + 32)
_X = torch.linspace(-1, 1, 64).view(2, 32)


def _net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(_BLOCKS))).eval()


def _load(folder: Path, plan_of: PlanOf, home: str, device: int | str, **figures: Any) -> Any:
    save_file(_net().state_dict(), folder / "m.safetensors")
    with torch.device("meta"):
        model = _net()
    inventory = match_checkpoint(read_module(model), read_headers(folder), model)
    return load_model(model, plan_of(inventory, lambda _: (home, device), **figures), inventory)


@pytest.mark.parametrize("device", ["cpu", 0])
def test_bytes_asked_of_files_are_all_that_was_read_and_those_of_disks_are_what_the_system_says(
    device: int | str, tmp_path: Path, plan_of: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = iter(range(1000, 100_000, 500))
    monkeypatch.setattr(counting, "bytes_from_disk", lambda: next(given))
    with simulated_devices({0: "1MB"}), torch.no_grad():
        model = _load(tmp_path, plan_of, "disk", device)
        for _ in range(4):
            model(_X)
        stats = model.devmap.stats()
        ahead = _BLOCKS * _BLOCK_BYTES
        assert 4 * ahead <= stats.file_bytes <= 5 * ahead
        assert 4 * ahead <= stats.streamed_bytes <= 5 * ahead
        assert stats.disk_bytes == 500
        assert model.devmap.stats().disk_bytes == 1000
        assert (stats.hits + stats.misses, stats.passes) == (4 * _BLOCKS, 4)
        assert stats.order_misses == 0


def test_where_the_system_does_not_say_what_disks_gave_nothing_is_made_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError()))
    assert bytes_from_disk() is None
    assert Counters().disk_bytes is None


def test_what_disks_gave_grows_with_reads_past_the_page_cache(tmp_path: Path) -> None:
    before = bytes_from_disk()
    path = tmp_path / "f"
    path.write_bytes(bytes(8 << 20))
    files = Files(direct=True)
    files.read_into(path, 0, [memoryview(bytearray(8 << 20))])
    after = bytes_from_disk()
    files.close()
    assert (before is None) is (after is None)
    if before is not None and after is not None and files.is_direct:
        assert after - before >= 8 << 20


@pytest.mark.parametrize(
    ("home", "device", "slow", "cause"),
    [
        ("disk", "cpu", "read", "disk"),
        ("disk", 0, "read", "disk"),
        ("cpu", 0, "host", "host"),
        ("disk", 0, "copy", "copy"),
    ],
)
def test_a_stall_is_counted_in_seconds_under_its_cause(
    home: str,
    device: int | str,
    slow: str,
    cause: str,
    tmp_path: Path,
    plan_of: PlanOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late(call: Callable[..., Any]) -> Callable[..., Any]:
        def wait(*arguments: Any, **figures: Any) -> Any:
            time.sleep(0.01)
            return call(*arguments, **figures)

        return wait

    with simulated_devices({0: "1MB"}), torch.no_grad():
        if slow == "read":
            monkeypatch.setattr("devmap.runtime.streaming.prepare.can_populate", lambda: False)
            monkeypatch.setattr(Files, "read_into", late(Files.read_into))
        elif slow == "host":
            monkeypatch.setattr("devmap.runtime.storage.readers._copy", late(torch.Tensor.copy_))
        else:
            monkeypatch.setattr(SimulatedBackend, "copy", late(SimulatedBackend.copy))
        monkeypatch.setattr(
            Readers.__init__, "__kwdefaults__", {"threads": 1, "scratch_bytes": 1 << 20, "direct": False}
        )
        model = _load(tmp_path, plan_of, home, device, host_memory_bytes=_BLOCK_BYTES)
        for _ in range(2):
            model(_X)
        stats = model.devmap.stats()
        by_cause = stats.stall_seconds_by_cause
        assert stats.stalls > 0
        assert sum(by_cause.values()) == pytest.approx(stats.stall_seconds, rel=0.05)
        assert by_cause[cause] >= 0.5 * stats.stall_seconds > 0.01
        assert stats.last_pass_bound_by == cause
        words = {
            "disk": "for reads",
            "host": "for copies into pinned memory",
            "copy": "for copies to a device",
        }
        assert words[cause] in render_stats(stats)


def test_a_pass_that_hardly_waits_is_bound_by_compute(tmp_path: Path, plan_of: PlanOf) -> None:
    model = _load(tmp_path, plan_of, "disk", "cpu", predicted_seconds=0.25, bound_seconds=0.125)
    assert model.devmap.stats().last_pass_bound_by is None
    model[0].register_forward_hook(lambda *_: time.sleep(0.05))
    with torch.no_grad():
        for _ in range(10):  # on a busy machine a pass may wait for a read after all
            model(_X)
            stats = model.devmap.stats()
            assert stats.last_pass_seconds > 0.05
            if stats.last_pass_bound_by == "compute":
                break
    assert stats.last_pass_bound_by == "compute"
    assert (stats.predicted_seconds, stats.bound_seconds) == (0.25, 0.125)


def test_what_binds_is_what_the_last_pass_waited_for_not_those_before() -> None:
    counters = Counters()
    assert binding(counters) is None
    counters.begin_pass()
    counters.stall(5.0, {"disk": 5.0})
    counters.last_pass_seconds = 6.0
    assert binding(counters) == "disk"
    counters.begin_pass()
    counters.stall(1.0, {"disk": 0.2, "copy": 0.8})
    counters.last_pass_seconds = 2.0
    assert binding(counters) == "copy"
    counters.begin_pass()
    counters.stall(0.09, {"host": 0.09})
    assert binding(counters) == "compute"
    counters.stall(0.09, {"host": 0.09})
    assert binding(counters) == "host"
