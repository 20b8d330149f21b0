"""The machine that a config means: described in it, a preset, a file, or the one this runs on."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from devmap.config.model.machine_file import parse_machine
from devmap.config.model.machines import PRESETS, preset
from devmap.config.model.nodes import flattened
from devmap.config.regular_files import expand_user, read_regular
from devmap.config.repository import without_content
from devmap.config.values.size import Percent
from devmap.config.values.words import near_words, shown
from devmap.config.yaml.decoding import Limits
from devmap.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from devmap.config.model.placement_config import MachineProfile, NodeProfile, PlacementConfig

__all__ = ["has_nodes", "machine_of", "needs_machine"]


def needs_machine(config: PlacementConfig) -> bool:
    """Return whether the budgets cannot be known without a machine.

    No `max_memory`, or shares of a device's memory in it.
    """
    if config.max_memory is None:
        return True
    return any(isinstance(amount, Percent) for amount in config.max_memory.values())


def has_nodes(config: PlacementConfig) -> bool:
    """Return whether a config is for several nodes, which it or the machine's file may name.

    Raises:
        UsageError, ConfigError: as `machine_of`.
    """
    machine = machine_of(config, probe=False)
    return machine is not None and bool(machine.nodes)


def machine_of(config: PlacementConfig, *, probe: bool) -> MachineProfile | None:
    """Return the machine of a config.

    With `probe` the one this runs on, where the config names none and its budgets need one.

    Raises:
        UsageError: when the config names a machine that is neither a preset nor a file.
        ConfigError: when the machine's file is wrong.
    """
    machine = config.machine
    if machine is not None:
        if not machine.devices and not machine.nodes:
            machine = _named(machine.name, config)
        return _cluster(machine, config) if machine.nodes else machine
    if probe and needs_machine(config):
        from devmap.devices.probe import this_machine  # noqa: PLC0415 - imports torch

        return this_machine()
    return None


def _cluster(machine: MachineProfile, config: PlacementConfig) -> MachineProfile:
    """Return a machine of several nodes with the devices of them all, each under its node's name."""
    nodes = {name: _with_devices(name, node, config) for name, node in machine.nodes.items()}
    return flattened(machine.model_copy(update={"nodes": nodes}))


def _with_devices(name: str, node: NodeProfile, config: PlacementConfig) -> NodeProfile:
    """Return a node with the devices that its preset or file stands for."""
    if node.devices or not node.name:
        return node
    try:
        return node.model_copy(update={"devices": _named(node.name, config).devices})
    except (UsageError, ConfigError) as error:
        if config.machine is not None and name in config.machine.nodes:
            error.path = ("machine", "nodes", name)
        raise


def _named(name: str, config: PlacementConfig) -> MachineProfile:
    known = preset(name)
    if known is not None:
        return known
    path = config.folder / expand_user(name)
    near = near_words(name, PRESETS)
    meant = f"did you mean '{near[0]}'? " if near else ""
    cards = ", ".join(dict.fromkeys(_COUNT.sub("", known) for known in PRESETS))
    hint = f"{meant}presets are {cards}, with a count as in 2x4090; or name a file that `devmap doctor` wrote"
    try:
        content = read_regular(path, limit_bytes=Limits().size_bytes)
    except FileNotFoundError:
        raise UsageError(
            f"{shown(name)} is neither a machine that devmap knows nor a file in {config.folder}", help=hint
        ) from None
    except OSError as error:
        raise UsageError(
            f"the machine {shown(name)} cannot be read: {error.strerror or error}", help=hint
        ) from None
    try:
        return parse_machine(content, os.fspath(path))
    except ConfigError as error:
        raise without_content(error, path, config.folder) from None


_COUNT = re.compile(r"[0-9]+x")
