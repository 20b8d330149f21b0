from __future__ import annotations

from pathlib import Path

import pytest

import devmap
from devmap.api.simulation import machine_of_devices, simulate_config
from devmap.report.simulation import render_simulation

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def test_the_example_fits_its_simulated_devices_to_the_byte_of_its_weights(minilm_folder: Path) -> None:
    config = EXAMPLES / "all-minilm-l6-v2.devmap.yaml"
    overrides = [f"model.checkpoint={minilm_folder}"]
    simulation = simulate_config(config, overrides=overrides, sequence_length=64)
    plan = devmap.resolve(devmap.read_config(config))
    planned = {use.device: use.weight_bytes for use in plan.devices}
    assert {device: use.weight_bytes for device, use in simulation.devices.items()} == planned
    assert simulation.fits
    assert "one pass fits on every device" in render_simulation(simulation)


def test_devices_that_are_not_there_replace_those_of_the_config(minilm_folder: Path) -> None:
    config = EXAMPLES / "all-minilm-l6-v2.devmap.yaml"
    overrides = [f"model.checkpoint={minilm_folder}", "device_map=balanced", "max_memory.cpu=1GB"]
    simulation = simulate_config(config, devices="4x60MiB", overrides=overrides, sequence_length=16)
    assert sum(device.is_accelerator for device in simulation.devices) == 4


def test_a_pass_that_is_too_long_for_the_memory_does_not_fit(minilm_folder: Path) -> None:
    config = EXAMPLES / "all-minilm-l6-v2.devmap.yaml"
    simulation = simulate_config(
        config, overrides=[f"model.checkpoint={minilm_folder}"], batch_size=64, sequence_length=512
    )
    assert not simulation.fits
    assert "too much" in render_simulation(simulation)


@pytest.mark.parametrize("text", ["4", "x24GiB", "0x24GiB", "4x24gb", "fourx24GiB", "4x"])
def test_devices_that_cannot_be_read_are_a_usage_error(text: str) -> None:
    with pytest.raises(devmap.UsageError, match="--devices"):
        machine_of_devices(text)


def test_devices_are_read_as_a_number_and_a_size() -> None:
    machine = machine_of_devices("2x24GiB")
    assert [known.memory for known in machine.devices.values()] == [24 << 30, 24 << 30]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_model_is_refused_by_name(quantization: str, minilm_folder: Path) -> None:
    config = EXAMPLES / "all-minilm-l6-v2.devmap.yaml"
    overrides = [f"model.checkpoint={minilm_folder}", f"model.quantization={quantization}"]
    with pytest.raises(devmap.UsageError, match="quantised model is not simulated") as caught:
        simulate_config(config, overrides=overrides)
    assert "--simulated" in caught.value.help
