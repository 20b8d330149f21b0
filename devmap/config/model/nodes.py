"""Devices of several nodes: what a key without a node stands for, and what a cluster has under a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.config.model.placement_config import MachineDevice, MachineProfile
    from devmap.config.values.device import Device

__all__ = ["called", "flattened", "known_device", "spread_keys"]

Value = TypeVar("Value")


def flattened(machine: MachineProfile) -> MachineProfile:
    """Return a machine of several nodes with the devices of them all, each under the name of its node.

    Nodes must have their devices: what a node's `name` stands for is looked up before. One machine is
    returned as it is.
    """
    if machine.devices or not machine.nodes:
        return machine
    devices = {
        device.on(name): known
        for name, node in machine.nodes.items()
        for device, known in node.devices.items()
    }
    name = machine.name or f"{len(machine.nodes)} nodes"
    return machine.model_copy(update={"name": name, "devices": devices})


def called(device: Device, machine: MachineProfile | None) -> tuple[Device, ...]:
    """Return the devices that a key stands for: the device of that name on every node that has it.

    The key itself where it names a node, or where there is one machine; nothing where no node has it. Every
    node has a CPU and a disk, measured or not.
    """
    if machine is None or not machine.nodes:
        return (device,)
    if device.node is not None:
        is_there = device.node in machine.nodes and (not device.is_accelerator or device in machine.devices)
        return (device,) if is_there else ()
    nodes = [device.on(node) for node in machine.nodes]
    return tuple(own for own in nodes if not own.is_accelerator or own in machine.devices)


def spread_keys(
    amounts: Mapping[Device, Value], machine: MachineProfile | None
) -> tuple[dict[Device, Value], tuple[Device, ...]]:
    """Return a mapping with keys for every node, and the keys of which no node has the device.

    A key with a node wins over one without.
    """
    found: dict[Device, Value] = {}
    absent: list[Device] = []
    for device, amount in amounts.items():
        devices: Iterable[Device] = called(device, machine)
        if not devices:
            absent.append(device)
        for own in devices:
            if own == device or own not in amounts:
                found[own] = amount
    return found, tuple(absent)


def known_device(machine: MachineProfile | None, device: Device) -> MachineDevice | None:
    """Return what a machine says of a device; for a name without a node, of the smallest of that name.

    None where it says nothing.
    """
    if machine is None:
        return None
    found = [machine.devices[own] for own in called(device, machine) if own in machine.devices]
    return min(found, key=lambda known: known.memory, default=None)
