"""The nodes of a config as the planner sees them: stages in order, and keys without a node written out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from devmap.config.model.nodes import flattened, spread_keys
from devmap.config.model.placement_config import Network, Parallel
from devmap.config.values.device import device_name
from devmap.errors import ResolutionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.device import Device

__all__ = ["Cluster", "cluster_of", "is_cluster", "on_every_node"]


Value = TypeVar("Value")


@dataclass(frozen=True)
class Cluster:
    """Several nodes: what a pipeline is laid over."""

    machine: MachineProfile
    """With the devices of all nodes, each under its node's name."""
    stages: tuple[Device, ...]
    """The accelerator of each stage, in the order of the pipeline."""
    parallel: Parallel

    def network(self, one: str, other: str) -> Network | None:
        """Return what lies between two nodes: the slower bandwidth and the longer latency of the two.

        None where the bandwidth of one of them is not known.
        """
        ends = [self.machine.nodes[name].network or self.machine.network for name in (one, other)]
        rates = [end.bandwidth for end in ends if end is not None and end.bandwidth is not None]
        if len(rates) < len(ends):
            return None
        return Network(bandwidth=min(rates), latency=max(end.latency for end in ends if end is not None))


def is_cluster(config: PlacementConfig, machine: MachineProfile | None) -> bool:
    """Return whether a config is for several nodes."""
    return bool(
        (machine is not None and machine.nodes) or (config.machine is not None and config.machine.nodes)
    )


def cluster_of(config: PlacementConfig, machine: MachineProfile | None) -> Cluster:
    """Return the cluster of a config; `machine` has the devices of its nodes.

    Raises:
        ResolutionError: a node without accelerators, more or fewer stages than accelerators, tensor parallel
            stages.
    """
    machine = machine if machine is not None else config.machine
    assert machine is not None
    machine = flattened(machine)
    parallel = config.parallel or Parallel()
    if parallel.tensor > 1:
        raise ResolutionError(
            f"parallel.tensor is {parallel.tensor}, and devmap shares no stage among accelerators",
            help="write tensor: 1; for the latency of one request, vLLM takes the plan's layer split",
        )
    usable = on_every_node(config, machine).max_memory
    found: list[Device] = []
    for node, profile in machine.nodes.items():
        accelerators = sorted(
            device.on(node)
            for device in profile.devices
            if device.is_accelerator and (usable is None or device.on(node) in usable)
        )
        if not accelerators:
            raise ResolutionError(
                f"node '{node}' offers no accelerator",
                help=f"name its devices or a preset (nodes: {{{node}: 8xh100}}), or take it out",
            )
        found += accelerators
    wanted = parallel.pipeline or len(found)
    if wanted != len(found):
        raise ResolutionError(
            f"parallel.pipeline is {wanted}, and the nodes offer {len(found)} accelerators",
            help=f"write pipeline: {len(found)}, or offer {wanted} accelerators in machine.nodes",
        )
    return Cluster(machine, tuple(found), parallel)


def on_every_node(config: PlacementConfig, machine: MachineProfile) -> PlacementConfig:
    """Return the config with keys of `max_memory` and `forbid` that name no node written out for every node.

    A key with a node wins over one without.

    Raises:
        ResolutionError: a key names a device that no node has.
    """
    memory = None if config.max_memory is None else _spread(config.max_memory, machine, "max_memory")
    return config.model_copy(
        update={"max_memory": memory, "forbid": _spread(config.forbid, machine, "forbid")}
    )


def _spread(amounts: Mapping[Device, Value], machine: MachineProfile, where: str) -> dict[Device, Value]:
    found, absent = spread_keys(amounts, machine)
    if absent:
        first = next(iter(machine.nodes))
        raise ResolutionError(
            f"{where} names {device_name(absent[0])}, which no node has",
            help=f"the nodes are {', '.join(machine.nodes)}; a device of one is written {first}/0",
        )
    return found
