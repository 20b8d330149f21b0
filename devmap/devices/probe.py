"""What this machine has, and what it can do."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.config.model.placement_config import MachineDevice, MachineProfile
from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.config.values.size import Bytes, format_bytes
from devmap.devices.accelerator import accelerator_type, device_count
from devmap.devices.rates import disk_rates, flops, host_to_device_rate, memory_rate
from devmap.devices.registry import backend_for
from devmap.devices.simulated_machine import active_machine

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.devices.backend import Memory

__all__ = ["Measurement", "measure", "this_machine"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `measure` found, and what it did to find it."""

    profile: MachineProfile
    sentences: tuple[str, ...]


def this_machine(folder: Path | None = None, *, whole: bool = False) -> MachineProfile:
    """Return the devices that this process can use, with the memory that is free on each now, in bytes.

    With `whole` all the memory that each has, which is the same from run to run. Accelerators by index, then
    the cpu (what can be allocated without swapping, within the control group's limit). The disk is there
    only with a `folder`: what is free on its file system. Inside `simulated_devices` the accelerators are
    the simulated ones. No accelerators is no error.
    """
    devices = {
        device: MachineDevice(memory=Bytes(memory.total_bytes if whole else memory.free_bytes))
        for device, memory in _memories().items()
    }
    if folder is not None:
        devices[DISK] = MachineDevice(memory=Bytes(shutil.disk_usage(folder).free))
    return MachineProfile(name="this machine", devices=devices)


def measure(folder: Path, *, seconds: float = 2.0) -> Measurement:
    """Measure this machine's rates.

    Each measurement takes about `seconds` at most, all of them a few times that.

    The memory of accelerators and of the cpu is the whole of it here, since a profile is kept longer than a
    moment; the disk's is what is free. Rates are in bytes a second, products in floating-point operations a
    second. A temporary file is written to `folder` and is gone afterwards.

    Raises:
        OSError: when nothing can be written to `folder`.
    """
    devices = {}
    sentences = []
    for device, memory in _memories().items():
        devices[device], done = _measured(device, memory, seconds=seconds)
        sentences += done
    disk = disk_rates(folder, seconds=seconds)
    devices[DISK] = MachineDevice(memory=Bytes(shutil.disk_usage(folder).free), disk=disk.best)
    rates = ", ".join(
        f"{format_bytes(int(rate))}/s with {depth} in flight" for depth, rate in disk.by_depth.items()
    )
    cache = (
        "after dropping it from the page cache"
        if disk.is_cold
        else "perhaps from the page cache, which cannot be dropped here"
    )
    sentences.append(
        f"disk: read a temporary file of {format_bytes(disk.file_bytes)} in {folder} {cache}: {rates}"
    )
    return Measurement(MachineProfile(name="this machine", devices=devices), tuple(sentences))


def _memories() -> dict[Device, Memory]:
    machine = active_machine()
    if machine is not None:
        found = [Device(Tier.ACCELERATOR, index, "sim") for index in machine.devices]
    else:
        kind = accelerator_type()
        found = (
            []
            if kind is None
            else [Device(Tier.ACCELERATOR, index, kind) for index in range(device_count(kind))]
        )
    return {device: backend_for(device).memory() for device in (*found, CPU)}


def _measured(device: Device, memory: Memory, *, seconds: float) -> tuple[MachineDevice, list[str]]:
    backend = backend_for(device)
    name = str(backend.torch_device)
    size = 1024 if backend.torch_device.type in {"cpu", "sim"} else 4096
    measured = {
        word: flops(backend, dtype, seconds=seconds / 8, size=size) for word, dtype in _DTYPES.items()
    }
    rates = {word: rate for word, rate in measured.items() if rate is not None}
    products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {word}" for word, rate in rates.items())
    sentences = [f"{name}: multiplied {size} x {size} matrices: {products}"]
    traffic = memory_rate(backend, seconds=seconds / 4)
    sentences.append(
        f"{name}: read and wrote its own memory, 67.1 MB at a time: {format_bytes(int(traffic))}/s"
    )
    found = MachineDevice(memory=Bytes(memory.total_bytes), flops=rates, memory_bandwidth=traffic)
    if not device.is_accelerator:
        return found, sentences
    moved, is_pinned = host_to_device_rate(backend, seconds=seconds / 4)
    kind = "pinned" if is_pinned else "pageable"
    sentences.append(f"{name}: copied 67.1 MB from {kind} host memory: {format_bytes(int(moved))}/s")
    return found.model_copy(update={"host_to_device": moved}), sentences
