from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import devmap
from devmap.api.machine import machine_of, needs_machine
from devmap.api.measuring import machine_text
from devmap.config.model.machine_file import parse_machine
from devmap.config.model.placement_config import MachineDevice, MachineProfile, PlacementConfig
from devmap.config.values.device import CPU, DISK, parse_device
from devmap.config.values.size import Bytes

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = MachineProfile(
    name="bench",
    devices={
        parse_device(0): MachineDevice(
            memory=Bytes(24_000_000_000), flops={"float16": 1.65e14}, host_to_device=2.5e10
        ),
        CPU: MachineDevice(memory=Bytes(64_000_000_000), memory_bandwidth=4.2e10),
        DISK: MachineDevice(memory=Bytes(1_000_000_000_000), disk=3.5e9),
    },
)


def config(**keys: object) -> PlacementConfig:
    return PlacementConfig.model_validate({"version": 1, "model": {}, **keys})


def test_a_preset_is_found_by_name() -> None:
    machine = machine_of(config(machine="2x4090"), probe=False)
    assert machine is not None
    assert [device.plain for device in sorted(machine.devices) if device.is_accelerator] == [0, 1]


def test_a_file_that_doctor_wrote_reads_back_as_the_same_machine(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(machine_text(PROFILE), encoding="utf-8")
    assert machine_of(config(machine="bench.yaml").placed_in(tmp_path), probe=False) == PROFILE


def test_a_name_that_is_neither_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(devmap.UsageError, match="neither a machine that devmap knows nor a file"):
        machine_of(config(machine="3x9090").placed_in(tmp_path), probe=False)


def test_a_wrong_machine_file_lists_its_faults_with_their_places() -> None:
    with pytest.raises(devmap.ConfigError) as caught:
        parse_machine(b"name: x\ndevices:\n  0: {memory: 24gb, flop: 1}\n", "m.yaml")
    assert [problem.code for problem in caught.value.problems] == ["DM104", "DM101"]


def test_the_machine_is_probed_only_where_the_budgets_need_it() -> None:
    assert needs_machine(config())
    assert needs_machine(config(max_memory={"0": "90%"}))
    assert not needs_machine(config(max_memory={"0": "1GB"}))
    assert machine_of(config(max_memory={"0": "1GB"}), probe=True) is None
    probed = machine_of(config(), probe=True)
    assert probed is not None
    assert CPU in probed.devices
