"""The probes: what this machine has and can do, within their time, leaving nothing behind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from devmap.config.values.device import CPU, DISK, parse_device
from devmap.devices import probe, rates
from devmap.devices.cpu import CpuBackend
from devmap.devices.probe import measure, this_machine
from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from pathlib import Path


def test_a_machine_without_accelerators_has_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "accelerator_type", lambda: None)
    devices = this_machine().devices
    assert list(devices) == [CPU]
    assert 0 < devices[CPU].memory <= CpuBackend().memory().total_bytes


def test_the_disk_stands_there_where_a_folder_is_named(tmp_path: Path) -> None:
    assert this_machine(tmp_path).devices[DISK].memory > 0


def test_simulated_devices_are_this_machine_s_devices() -> None:
    with simulated_devices({0: "60MB", 2: "25MB"}, cpu="15MB"):
        kept = torch.zeros(250_000, device="sim:2")
        found = {str(device): entry.memory for device, entry in this_machine().devices.items()}
    assert found == {"0": 60_000_000, "2": 25_000_000 - kept.nbytes, "cpu": 15_000_000}


def test_measuring_gives_rates_and_says_what_it_did(tmp_path: Path) -> None:
    with simulated_devices({0: "1GB"}):
        found = measure(tmp_path, seconds=0.2)
    device, host, disk = (found.profile.devices[key] for key in (parse_device(0), CPU, DISK))
    assert device.memory == 1_000_000_000
    for rate in (device.host_to_device, device.memory_bandwidth, host.memory_bandwidth, disk.disk):
        assert rate is not None
        assert rate > 1e6
    assert host.flops is not None
    assert host.flops["float32"] > 1e6
    assert [sentence.partition(":")[0] for sentence in found.sentences] == [
        "sim",
        "sim",
        "sim",
        "cpu",
        "cpu",
        "disk",
    ]
    assert f"in {tmp_path}" in found.sentences[-1]
    assert "8 in flight" in found.sentences[-1]


def test_measuring_a_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    found = rates.disk_rates(tmp_path, seconds=0.2, file_bytes=20_000_001, depths=(1, 3))
    assert list(tmp_path.iterdir()) == []
    assert sorted(found.by_depth) == [1, 3]
    assert 0 < found.file_bytes <= 20_000_001
    assert found.best == max(found.by_depth.values()) > 0
    assert found.is_cold is hasattr(os, "posix_fadvise")


def test_a_system_without_advice_says_that_the_cache_may_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    monkeypatch.delattr(os, "preadv", raising=False)
    assert not rates.disk_rates(tmp_path, seconds=0.1, file_bytes=1_000_000).is_cold


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        measure(tmp_path / "absent", seconds=0.01)


@pytest.mark.parametrize(("slow", "calls"), [(True, 1), (False, 4)])
def test_a_call_that_takes_all_the_time_is_made_once(
    monkeypatch: pytest.MonkeyPatch, slow: bool, calls: int
) -> None:
    made: list[float] = []
    now = [0.0]

    def call() -> None:
        made.append(now[0])
        now[0] += 5.0 if slow else 0.1

    monkeypatch.setattr("devmap.devices.rates.time.perf_counter", lambda: now[0])
    assert rates._calls_a_second(call, seconds=0.35) == pytest.approx(0.2 if slow else 10)
    assert len(made) == calls


def test_a_dtype_that_a_device_cannot_multiply_has_no_rate() -> None:
    assert rates.flops(CpuBackend(), torch.bool, seconds=0.01, size=8) is None
