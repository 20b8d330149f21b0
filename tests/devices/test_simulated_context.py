"""The context: once at a time, again and again, and nothing of it survives."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import devmap
from devmap.devices.simulated_machine import active_machine
from devmap.testing import simulated_devices


def test_contexts_follow_each_other_in_one_process() -> None:
    for budget in range(1000, 1020):
        with simulated_devices({0: budget, 1: 10}) as devices:
            assert devices[0].budget_bytes == budget
            assert torch.ones(2, device="sim:0").sum().item() == 2
            assert devices[1].used_bytes == 0
    assert active_machine() is None


def test_nested_contexts_are_refused_and_the_outer_one_goes_on() -> None:
    with simulated_devices({0: 1000}):
        with (
            pytest.raises(devmap.DeviceError, match="in use already") as caught,
            simulated_devices({1: 1000}),
        ):
            pass
        assert "name all devices in one call" in caught.value.help
        assert torch.ones(2, device="sim:0").sum().item() == 2


def test_an_error_inside_closes_the_context() -> None:
    with pytest.raises(KeyError), simulated_devices({0: 1000}):
        raise KeyError
    assert active_machine() is None
    assert torch.autograd.is_multithreading_enabled()


def test_leftover_tensors_raise_when_they_are_used() -> None:
    with simulated_devices({0: 1000}):
        leftover = torch.ones(2, device="sim:0")
        layer = nn.Linear(2, 2).to("sim:0")
    with pytest.raises(devmap.DeviceError, match="after its `simulated_devices` context has ended"):
        leftover + 1
    with pytest.raises(devmap.DeviceError, match="has ended"):
        leftover.cpu()
    with simulated_devices({0: 1000}):
        with pytest.raises(devmap.DeviceError, match="has ended"):
            layer(torch.ones(2, device="sim:0"))
        assert torch.ones(2, device="sim:0").sum().item() == 2


@pytest.mark.parametrize("device", ["sim:0", 0])
def test_outside_there_are_no_devices(device: str | int) -> None:
    with simulated_devices({0: 1000}):
        pass
    with pytest.raises(devmap.DeviceError, match="no simulated devices here"):
        torch.ones(2, device=device)
    assert not torch.get_device_module("sim").is_available()
    assert torch.get_device_module("sim").device_count() == 0


def test_no_devices_at_all_is_a_context_too() -> None:
    with simulated_devices({}) as devices:
        assert not devices


def test_sizes_are_parsed_as_in_a_config() -> None:
    with simulated_devices({0: "1.5 MiB"}, cpu="2KB") as devices:
        assert devices[0].budget_bytes == 1_572_864
    with pytest.raises(ValueError, match="ambiguous"), simulated_devices({0: "8gb"}):
        pass


def test_another_backend_in_the_process_is_named() -> None:
    program = """
        import torch
        torch.utils.rename_privateuse1_backend("other")
        import devmap
        from devmap.testing import simulated_devices
        try:
            with simulated_devices({0: 1000}):
                pass
        except devmap.DeviceError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "which this process uses for 'other'" in done.stdout
