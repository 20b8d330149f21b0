"""A config's plan run over fake tensors: peak bytes per device, with no weights and no accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.api.gate import refuse_errors
from devmap.api.machine import has_nodes, machine_of
from devmap.api.overview import ConfigOverview
from devmap.api.sources import build_with_factory, headers_of, inventory_of
from devmap.config.document import read_config
from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.device import Device, Tier
from devmap.config.values.size import parse_size
from devmap.errors import UsageError
from devmap.planning.why.overview import overview
from devmap.runtime.meta_build import build_on_meta
from devmap.simulate.fake import Simulation, simulate

if TYPE_CHECKING:
    import os

    from torch import nn

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.overrides import Overrides

__all__ = ["SimulatedOverview", "machine_of_devices", "simulate_config", "simulated_overview"]


def simulate_config(
    path: str | os.PathLike[str],
    *,
    devices: str | None = None,
    model_config: str | os.PathLike[str] | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    batch_size: int = 1,
    sequence_length: int = 2048,
    allow_code: bool = False,
) -> Simulation:
    """Resolve a config, and run one forward pass of its model over fake tensors on the plan's devices.

    Args:
        path: the config.
        devices: accelerators in place of those of the config, such as `4x24GiB`.
        model_config: a `config.json` to build the model from, where the checkpoint is not at hand.
        profile: one of the config's profiles.
        overrides: changes such as `max_memory.cpu=64GB`, or a mapping, `{"max_memory.cpu": "64GB"}`.
        batch_size: sequences of the pass.
        sequence_length: tokens of each sequence.
        allow_code: let `model.factory` run.

    Raises:
        UsageError: when `devices` cannot be read, the model is quantised, or devmap does not know what input
            it takes.
        DevmapError: what reading and resolving raises.
    """
    shown = simulated_overview(
        path,
        devices=devices,
        model_config=model_config,
        profile=profile,
        overrides=overrides,
        batch_size=batch_size,
        sequence_length=sequence_length,
        allow_code=allow_code,
    )
    return shown.simulation


@dataclass(frozen=True)
class SimulatedOverview:
    """A config's plan explained, and the pass that was simulated by it."""

    shown: ConfigOverview
    """Without findings: the pass may be of other devices than the config's."""
    simulation: Simulation


def simulated_overview(
    path: str | os.PathLike[str],
    *,
    devices: str | None = None,
    model_config: str | os.PathLike[str] | None = None,
    profile: str | None = None,
    overrides: Overrides = (),
    batch_size: int = 1,
    sequence_length: int = 2048,
    allow_code: bool = False,
) -> SimulatedOverview:
    """Simulate a pass as `simulate_config` does, with the plan and the model that a page shows beside it.

    Raises:
        UsageError, DevmapError: as `simulate_config`.
    """
    config = read_config(path, profile, overrides=overrides)
    if config.components:
        raise UsageError(
            "a config with components has no one pass to simulate",
            help="simulate a config of one of them; `devmap plan` shows where all of them go",
        )
    if has_nodes(config):
        raise UsageError(
            "a pass of several nodes is not simulated in one process",
            help="`devmap plan` predicts a step; under torchrun `devmap run CONFIG --simulated` makes one",
        )
    if devices is not None:
        config = _on(config, devices)
    built = None if config.model.factory is None else build_with_factory(config, allow_code=allow_code)
    inventory = inventory_of(config, allow_code=allow_code, built=built)
    if any(tensor.kind == "part" for tensor in inventory.tensors.values()):
        raise UsageError(
            "a quantised model is not simulated: its library's kernels do not run over fake tensors",
            help="`devmap plan` shows the bytes; `devmap run --simulated` runs it on simulated devices",
        )
    found = overview(config, inventory, machine=machine_of(config, probe=True))
    refuse_errors(path, found.plan, inventory, profile=profile, overrides=overrides, allow_code=allow_code)
    model = _model(config, model_config) if built is None else built
    simulation = simulate(model, found.plan, batch_size=batch_size, sequence_length=sequence_length)
    name = (
        f"{Path(path).name}{f', profile {profile}' if profile else ''}{f', on {devices}' if devices else ''}"
    )
    return SimulatedOverview(ConfigOverview(name, found, inventory, None), simulation)


def machine_of_devices(text: str) -> MachineProfile:
    """Accelerators of one size from `4x24GiB`.

    Raises:
        UsageError: when the text is not of that form.
    """
    count, cross, size = text.partition("x")
    try:
        memory = parse_size(size)
        number = int(count) if count.isdecimal() and cross else 0
    except ValueError as error:
        raise UsageError(f"--devices {text}: {error}", help="for example 4x24GiB") from None
    if not 0 < number <= 1024:
        raise UsageError(
            f"--devices {text}: expected a number of devices and a size", help="for example 4x24GiB"
        )
    return MachineProfile(
        name=text,
        devices={Device(Tier.ACCELERATOR, index): MachineDevice(memory=memory) for index in range(number)},
    )


def _on(config: PlacementConfig, devices: str) -> PlacementConfig:
    """Return the config with other accelerators; what it offers of cpu and disk stays."""
    machine = machine_of_devices(devices)
    memory = {device: known.memory for device, known in machine.devices.items()}
    others = {
        device: amount for device, amount in (config.max_memory or {}).items() if not device.is_accelerator
    }
    return config.model_copy(update={"max_memory": {**memory, **others}, "machine": None})


def _model(config: PlacementConfig, model_config: str | os.PathLike[str] | None) -> nn.Module:
    source = headers_of(config) if model_config is None else model_config
    return build_on_meta(source, dtype=config.model.dtype)
