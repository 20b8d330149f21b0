"""A commented config to start from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.atomic_files import write_named
from devmap.config.model.json_schema import config_schema, render_schema
from devmap.config.model.machines import preset
from devmap.config.values.size import format_bytes
from devmap.errors import UsageError
from devmap.inventory.model import Inventory
from devmap.inventory.stored.hub import find_checkpoint

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile

__all__ = ["SCHEMA_NAME", "Starter", "starter_config", "write_starter"]

SCHEMA_NAME = "devmap.schema.json"
"""The schema's file beside a starter config, which its modelines name."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A config to start from."""

    text: str
    model: str
    """What was found: the architecture, its bytes and tensors, in words."""


def write_starter(path: Path, text: str, *, force: bool = False) -> None:
    """Write a starter config.

    And the JSON Schema that its first lines name for editors beside it, each whole or not at all.

    Raises:
        UsageError: when the file exists and `force` is not set, or one of them cannot be written.
    """
    if path.exists() and not force:
        raise UsageError(f"{path} exists", help="pass --force to replace it, or -o for another name")
    write_named(path.with_name(SCHEMA_NAME), render_schema(config_schema()).encode())
    write_named(path, text.encode())


def starter_config(checkpoint: str, *, folder: Path, machine_name: str | None = None) -> Starter:
    """Return a config for a checkpoint, with the devices of this machine or of a preset.

    Relative paths in it start from `folder`, where the config will be. Without a preset this machine is
    looked at, which imports torch: the whole memory of each device less 15% (of the CPU's less 20%), not
    what is free at the moment, so that the same call gives the same text.

    Raises:
        CheckpointError: when the checkpoint is not there or damaged.
        UsageError: when the preset is unknown.
    """
    inventory = Inventory.from_checkpoint(find_checkpoint(checkpoint, folder=Path()))
    machine = _machine(machine_name)
    source = os.path.relpath(checkpoint, folder) if Path(checkpoint).exists() else checkpoint
    if Path(checkpoint).exists() and not source.startswith(("/", ".")):
        source = f"./{source}"
    architecture = (
        inventory.architecture.class_name if inventory.architecture else "a model of no known architecture"
    )
    described = f"{architecture}, {format_bytes(inventory.nbytes)} in {len(inventory.tensors):,} tensors"
    whole = ", ".join(inventory.no_split_module_classes)
    lines = [
        f"# yaml-language-server: $schema=./{SCHEMA_NAME}",
        f"# $schema: ./{SCHEMA_NAME}",
        f"# {described}",
        "version: 1",
        "model:",
        f"  checkpoint: {_quoted(source)}",
        "  # dtype: bfloat16             # the dtype it runs in; left out: the checkpoint's",
        (
            "  # manifest: NAME.manifest.yaml  # written by 'devmap inspect CHECKPOINT -o', so that CI needs "
            "no weights"
        ),
        (
            "device_map: auto                # or balanced, balanced_low_0, "
            "sequential, fastest, or a mapping "
            "of your own"
        ),
        *_memory_lines(machine, named=machine_name),
        f"# no_split_module_classes: [{whole}]  # what the model's own code says",
        "# workload: inference           # keeps room for the KV cache and activations; or training, server",
        "",
    ]
    return Starter("\n".join(lines), described)


def _machine(name: str | None) -> MachineProfile:
    if name is None:
        from devmap.devices.probe import this_machine  # noqa: PLC0415 - imports torch

        return this_machine(whole=True)
    found = preset(name)
    if found is None:
        raise UsageError(f"devmap knows no machine '{name}'", help="for example 2x4090, 8xh100-80gb")
    return found


def _memory_lines(machine: MachineProfile, *, named: str | None) -> list[str]:
    lines = [
        "max_memory:"
        + (f"                     # {named}" if named else "                     # this machine")
    ]
    for device in sorted(machine.devices):
        memory = machine.devices[device].memory
        if device.is_accelerator:
            lines.append(f"  {device}: {memory * 85 // 100 // 10**6}MB  # 85% of {format_bytes(memory)}")
        elif str(device) == "cpu":
            lines.append(
                f"  cpu: {memory * 80 // 100 // 10**6}MB  # 80% of {format_bytes(memory)}; take the line "
                f"out to keep off the CPU"
            )
        else:
            lines.append(f"  # disk: {memory * 50 // 100 // 10**9}GB  # offers the disk as the last tier")
    return lines


def _quoted(text: str) -> str:
    return (
        text
        if text.replace("/", "").replace(".", "").replace("-", "").replace("_", "").isalnum()
        else f"'{text}'"
    )
