"""Keys that are different as text and the same device once they are parsed: `0` beside `cuda:0`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.model.placement_config import MachineProfile, PlacementConfig
from devmap.config.values.device import Device, parse_device
from devmap.config.yaml.faults import DocumentPath, Fault
from devmap.config.yaml.positions import locate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from devmap.config.yaml.positions import NodePosition
    from devmap.config.yaml.reader import Plain

__all__ = ["colliding_devices"]

_BY_DEVICE: dict[type[BaseModel], tuple[DocumentPath, ...]] = {
    PlacementConfig: (("max_memory",), ("headroom",), ("forbid",), ("machine", "devices")),
    MachineProfile: (("devices",),),
}
"""The mappings of a model whose keys are devices."""


def colliding_devices(
    model: type[BaseModel], data: Plain, positions: Mapping[DocumentPath, NodePosition]
) -> Iterator[Fault]:
    """Yield a fault for each key that names a device which another key of the same mapping names already.

    pydantic would keep the last of them and say nothing.
    """
    for path in _BY_DEVICE.get(model, ()):
        node = data
        for part in path:
            node = node.get(str(part)) if isinstance(node, dict) else None
        if not isinstance(node, dict) or len(node) < 2:
            continue
        known: dict[Device, str] = {}
        for key in node:
            try:
                device = parse_device(key)
            except ValueError:
                continue  # a fault of its own
            first = known.setdefault(device, key)
            if first != key:
                message = f"'{key}' and '{first}' are the same device"
                yield Fault(
                    "DM110",
                    message,
                    locate((*path, key), positions, key=True),
                    (*path, key),
                    help="keep one of them",
                )
