"""A lock fixes the budgets of a config that has none.

The same plan anywhere, and a machine that has less says so.
"""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import devmap
from devmap.api.locks.locking import say_differences
from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.device import CPU, Device, Tier
from devmap.config.values.size import Bytes
from devmap.errors import DeviceError
from devmap.plan.lock import lock_of, write_lock
from devmap.plan.locked_machine import locked_machine
from devmap.planning.resolve import resolve
from devmap.runtime.handle import Handle
from tests.planning.planning_models import chain, config

if TYPE_CHECKING:
    from pathlib import Path

GPU, GPU1 = Device(Tier.ACCELERATOR, 0), Device(Tier.ACCELERATOR, 1)
MODEL = chain(8, 8, 8)


def machine(**memory: int) -> MachineProfile:
    names = {"gpu0": GPU, "gpu1": GPU1, "cpu": CPU}
    return MachineProfile.model_construct(
        name="m", devices={names[name]: MachineDevice(memory=Bytes(size)) for name, size in memory.items()}
    )


@given(st.integers(24, 5_000), st.integers(24, 5_000), st.decimals(Decimal(50), Decimal(100), places=2))
def test_the_machine_of_a_lock_gives_the_same_plan(first: int, second: int, percent: Decimal) -> None:
    for keys in ({}, {"max_memory": {0: f"{percent}%", 1: f"{percent}%", "cpu": 100}}):
        parsed = config(**keys)
        plan = resolve(parsed, MODEL, machine=machine(gpu0=first, gpu1=second, cpu=100))
        again = resolve(parsed, MODEL, machine=locked_machine(lock_of(plan), parsed, MODEL))
        assert (again.device_map, again.placements) == (plan.device_map, plan.placements)
        assert [use.capacity_bytes for use in again.devices] == [use.capacity_bytes for use in plan.devices]


def test_a_machine_that_has_less_than_the_lock_is_refused_with_what_is_missing() -> None:
    plan = resolve(config(), MODEL, machine=machine(gpu0=20, gpu1=20, cpu=100))
    say_differences(plan, machine(gpu0=17, gpu1=17), "x.devmap.yaml")
    with pytest.raises(DeviceError, match="on 1, which has 7 B free") as caught:
        say_differences(plan, machine(gpu0=20, gpu1=7), "x.devmap.yaml")
    assert "devmap resolve x.devmap.yaml --lock" in caught.value.help
    with pytest.raises(DeviceError, match="on device 1, which is not there"):
        say_differences(plan, machine(gpu0=20), "x.devmap.yaml")


def test_accelerators_that_the_lock_leaves_idle_are_warned_of() -> None:
    plan = resolve(config(), MODEL, machine=machine(gpu0=40, cpu=100))
    with pytest.warns(UserWarning, match="without device 1"):
        say_differences(plan, machine(gpu0=40, gpu1=40, cpu=100), "x.devmap.yaml")


def test_load_keeps_to_the_lock_and_refuses_a_smaller_machine(tmp_path: Path, minilm_folder: Path) -> None:
    path = tmp_path / "x.devmap.yaml"
    path.write_text(f"version: 1\nmodel: {{checkpoint: '{minilm_folder}'}}\nheadroom: 0%\n", encoding="utf-8")
    with devmap.testing.simulated_devices({0: "60MB", 1: "100MB"}):
        plan = devmap.resolve(devmap.read_config(path))
        write_lock(plan, tmp_path / "x.devmap.lock.yaml")
        assert {use.device.plain for use in plan.devices if use.weight_bytes} == {0, 1}
    with devmap.testing.simulated_devices({0: "300MB", 1: "300MB"}):
        model = devmap.load(path, progress=False)
        handle = model.devmap
        assert isinstance(handle, Handle)
        assert handle.plan.device_map == plan.device_map
        handle.remove()
    with (
        devmap.testing.simulated_devices({0: "60MB"}),
        pytest.raises(DeviceError, match="the lock was made for another machine"),
    ):
        devmap.load(path, progress=False)


def test_a_machine_like_the_lock_s_is_taken_in_silence() -> None:
    plan = resolve(config(), MODEL, machine=machine(gpu0=40, cpu=100))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_differences(plan, machine(gpu0=41, cpu=50), "x.devmap.yaml")
