"""DM704, DM705, DM708: nodes, accelerators and network, as the config names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.nodes import called
from devmap.config.values.device import Device, device_name
from devmap.config.values.strategy import Strategy
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import (
    device_path,
    devices_named,
    is_of_absent_node,
    map_path,
    nodes_of,
    offered_devices,
)
from devmap_validators.checks.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.model.placement_config import MachineProfile
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context

__all__ = ["RULES"]


def _absent_nodes(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or context.machine_error is not None:
        return
    machine = nodes_of(context)
    if machine is None:
        yield from _without_nodes(context)
        return
    names = ", ".join(machine.nodes)
    for device, path in _named(context):
        if is_of_absent_node(context, device):
            yield Report(
                f"{device_name(device)} is of node '{device.node}', which machine.nodes does not name",
                path,
                on_key=path[:1] != ("device_map",),
                severity=_severity_at(path),
                help=f"the nodes are {names}",
            )
    yield from _of_another_node(context)
    yield from _without_node_in_map(context, machine)
    offered = offered_devices(context) or frozenset()
    for name in machine.nodes:
        if not any(device.node == name and device.is_accelerator for device in offered):
            yield Report(
                f"node '{name}' offers no accelerator, and a stage needs one",
                ("machine", "nodes", name),
                on_key=True,
                help="offer one of its accelerators in max_memory, or take the node out",
            )


def _named(context: Context) -> Iterator[tuple[Device, DocumentPath]]:
    """Yield every device that the config names, as a place for weights or for what stays free on it."""
    config = context.document.config
    yield from devices_named(context)
    for device in config.headroom.devices if config is not None and config.headroom is not None else ():
        yield device, device_path(context, ("headroom",), device)
    for device in config.machine.devices if config is not None and config.machine is not None else ():
        yield device, device_path(context, ("machine", "devices"), device)


def _of_another_node(context: Context) -> Iterator[Report]:
    """Yield devices of a node's own list that are written with the name of another."""
    config = context.document.config
    assert config is not None
    for name, node in config.machine.nodes.items() if config.machine is not None else ():
        for device in node.devices:
            if device.node not in {None, name}:
                yield Report(
                    f"{device_name(device)} stands among the devices of node '{name}'",
                    device_path(context, ("machine", "nodes", name, "devices"), device),
                    on_key=True,
                    help=f"write a node's own devices without a name: {device.on(None)}",
                )


def _severity_at(path: DocumentPath) -> Severity | None:
    """Return a warning for what is kept free on a device that is not there: the plan is the same without."""
    return Severity.WARNING if path[:1] == ("headroom",) else None


def _without_node_in_map(context: Context, machine: MachineProfile) -> Iterator[Report]:
    """Yield accelerators of the map without a node: budgets may be for all nodes, a module is on one."""
    config = context.document.config
    assert config is not None
    for key, target in config.device_map.items():
        if not isinstance(target, Device) or not target.is_accelerator or target.node is not None:
            continue
        own = called(target, machine)
        if own:  # DM302 says so where no node has it
            yield Report(
                f"device {target.plain} is on {counted(len(own), 'node')}, and the map does not say which "
                "is meant",
                map_path(context, key),
                help=f"write it with its node: {' or '.join(map(str, own[:3]))}",
            )


def _without_nodes(context: Context) -> Iterator[Report]:
    """Yield what only means something where there are nodes."""
    config = context.document.config
    assert config is not None
    for device, path in _named(context):
        if device.node is not None:
            yield Report(
                f"{device_name(device)} is of node '{device.node}', and the config names no nodes",
                path,
                on_key=path[:1] != ("device_map",),
                severity=_severity_at(path),
                help=f"name the machines: machine: {{nodes: {{{device.node}: 8xh100}}}}",
            )
    if config.parallel is not None:
        yield _no_effect("parallel", ("parallel",))
    if config.machine is not None and config.machine.network is not None:
        yield _no_effect("machine.network", ("machine", "network"))


def _no_effect(key: str, path: tuple[str, ...]) -> Report:
    return Report(
        f"'{key}' has no effect: the config names no nodes",
        path,
        on_key=True,
        severity=Severity.WARNING,
        help="name them in machine.nodes, or take it out",
    )


def _wrong_number(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or nodes_of(context) is None or offered is None or config.parallel is None:
        return
    parallel = config.parallel
    accelerators = sum(device.is_accelerator for device in offered)
    if parallel.tensor > 1:
        yield Report(
            f"parallel.tensor is {parallel.tensor}, and devmap shares no stage among accelerators",
            ("parallel", "tensor"),
            help="write tensor: 1; `devmap plan --export vllm` gives the split to an engine that does",
        )
    elif parallel.pipeline is not None and parallel.pipeline != accelerators:
        yield Report(
            f"{counted(parallel.pipeline, 'stage')} for {counted(accelerators, 'offered accelerator')}",
            ("parallel", "pipeline"),
            help=f"write pipeline: {accelerators}, or leave it out; a stage is one accelerator",
        )


def _no_network_rate(context: Context) -> Iterator[Report]:
    config, machine = context.document.config, nodes_of(context)
    if config is None or machine is None or Strategy.FASTEST not in config.device_map.values():
        return
    if len(machine.nodes) < 2:
        return
    for name, node in machine.nodes.items():
        network = node.network or machine.network
        if network is not None and network.bandwidth is not None:
            continue
        own = node.network is not None
        yield Report(
            "fastest needs the bandwidth of the network" + (f" of node '{name}'" if own else ""),
            ("machine", "nodes", name, "network") if own else ("machine",),
            on_key=True,
            help="add network: {bandwidth: 50GB/s} to the machine, or place by balanced",
        )
        if not own:
            return


_HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"
_TWO = "{a: {devices: {0: {memory: 4GB}}}, b: {devices: {0: {memory: 4GB}}}}"

RULES = (
    Rule(
        code="DM704",
        name="absent-node",
        severity=Severity.ERROR,
        summary="A device of a node that is not there, or a node without accelerators",
        why=(
            "A device of several machines is written with its node's name, `a/0`. A name that "
            "`machine.nodes` does not have is a device that no rank runs on, and a node of which no "
            "accelerator is offered has no stage. Where the config names no nodes, `parallel` and "
            "`machine.network` say nothing."
        ),
        good=f"{_HEAD}machine: {{nodes: {_TWO}}}\nmax_memory: {{a/0: 2GB, b/0: 2GB}}\n",
        bad=f"{_HEAD}machine: {{nodes: {_TWO}}}\nmax_memory: {{a/0: 2GB, b/0: 2GB, c/0: 2GB}}\n",
        check=_absent_nodes,
    ),
    Rule(
        code="DM705",
        name="stages-and-accelerators",
        severity=Severity.ERROR,
        summary="Not as many stages as accelerators are offered",
        why=(
            "A stage is one accelerator and one process. With more stages than accelerators some have "
            "no place; with fewer, accelerators are paid for and idle. Accelerators that share a stage "
            "(tensor parallelism) are neither planned nor run."
        ),
        good=f"{_HEAD}machine: {{nodes: {_TWO}}}\nmax_memory: {{0: 2GB}}\nparallel: {{pipeline: 2}}\n",
        bad=f"{_HEAD}machine: {{nodes: {_TWO}}}\nmax_memory: {{0: 2GB}}\nparallel: {{pipeline: 4}}\n",
        check=_wrong_number,
    ),
    Rule(
        code="DM708",
        name="fastest-without-network",
        severity=Severity.ERROR,
        summary="`fastest` over several nodes, and nothing says how fast their network is",
        why=(
            "The time of a pipeline depends on what passes between its stages. Without the network's "
            "bandwidth no split can be called the fastest."
        ),
        good=(
            f"{_HEAD}machine: {{nodes: {{a: 1xa100, b: 1xa100}}, network: {{bandwidth: 25Gbit/s}}}}\n"
            "device_map: fastest\n"
        ),
        bad=f"{_HEAD}machine: {{nodes: {{a: 1xa100, b: 1xa100}}}}\ndevice_map: fastest\n",
        check=_no_network_rate,
    ),
)
