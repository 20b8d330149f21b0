"""From a plan and a module: which weight stays on which device, and which weights are streamed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.config.device import Device
    from devmap.plan.model import Placement, Plan
    from devmap.runtime.survey import Spot, Survey
    from devmap.runtime.weights import Weight

__all__ = ["Arrangement", "Block", "arrange", "placement_of"]


@dataclass(frozen=True)
class Block:
    """The weights of one streamed placement."""

    placement: Placement
    weights: tuple[Weight, ...]
    spots: tuple[Spot, ...]
    is_module: bool
    """False for a tensor on a module that is split: it has no forward of its own, and is fetched when it is used."""

    @property
    def nbytes(self) -> int:
        """Bytes of its slab. A tied weight counts in each block that needs it."""
        return sum(weight.nbytes for weight in self.weights)


@dataclass(frozen=True)
class Arrangement:
    """Where everything goes."""

    residents: Mapping[tuple[str, Device], tuple[Spot, ...]]
    """By owner and device the places that show this copy of the weight."""
    blocks: tuple[Block, ...]
    devices: frozenset[Device]
    """All that execute something."""
    regions: Mapping[str, Device]
    """The modules whose inputs are moved, and the one device that everything inside executes on."""


def placement_of(name: str, placements: Mapping[str, Placement]) -> Placement | None:
    """The placement of a tensor: its own, or that of the nearest module around it."""
    while True:
        found = placements.get(name)
        if found is not None or not name:
            return found
        name = name.rpartition(".")[0]


def arrange(found: Survey, weights: Mapping[str, Weight], plan: Plan) -> Arrangement:
    """Sort every place of the module tree; all must be covered by the plan.

    A buffer of a streamed block stays on the executing device, unless the plan offloads buffers; one that is computed and
    never saved always does. A weight of a streamed block that is resident on the executing device anyway, by a tie, is
    not streamed.
    """
    placements = {placement.path: placement for placement in plan.placements}
    by_module = {path: placement_of(path, placements) for path in found.modules}
    residents: dict[tuple[str, Device], list[Spot]] = {}
    streamed: dict[str, list[Spot]] = {}
    executes: dict[str, set[Device]] = {}
    for spot in found.spots:
        placement = placements.get(spot.name) or by_module[spot.module]
        assert placement is not None
        path = spot.module
        while placement.executes_on not in executes.setdefault(path, set()):
            executes[path].add(placement.executes_on)
            path = path.rpartition(".")[0]
        stays = spot.kind == "buffer" and not (spot.persistent and plan.offload_buffers)
        if placement.is_streamed and not stays:
            streamed.setdefault(placement.path, []).append(spot)
        else:
            residents.setdefault((spot.owner, placement.executes_on), []).append(spot)
    blocks = []
    for path, spots in streamed.items():
        placement = placements[path]
        moving: list[Spot] = []
        for spot in spots:
            here = residents.get((spot.owner, placement.executes_on))
            (moving if here is None else here).append(spot)
        if moving:
            owners = dict.fromkeys(spot.owner for spot in moving)
            blocks.append(Block(placement, tuple(weights[owner] for owner in owners), tuple(moving), is_module=path in found.modules))
    order = {placement.path: index for index, placement in enumerate(plan.placements)}
    blocks.sort(key=lambda block: order[block.placement.path])
    return Arrangement(
        {key: tuple(spots) for key, spots in residents.items()},
        tuple(blocks),
        frozenset(executes.get("", ())),
        _regions(found, executes, placements),
    )


def _regions(found: Survey, executes: Mapping[str, set[Device]], placements: Iterable[str]) -> dict[str, Device]:
    """Where inputs are moved: at the outermost modules that execute on one device.

    Not at containers that are never called, such as `nn.ModuleList`; inside a region again at modules that hold several
    placements, because callers reach for those directly (`generate` calls the encoder).
    """
    above = {""}
    for path in placements:
        parent = path.rpartition(".")[0]
        while parent not in above:
            above.add(parent)
            parent = parent.rpartition(".")[0]
    regions = {}
    for path, devices in executes.items():
        if len(devices) == 1 and _has_forward(found, path):
            outer = path.rpartition(".")[0]
            while outer and not _has_forward(found, outer):
                outer = outer.rpartition(".")[0]
            if path in above or len(executes[outer]) > 1:
                regions[path] = next(iter(devices))
    return regions


def _has_forward(found: Survey, path: str) -> bool:
    return type(found.modules[path]).forward is not nn.Module.forward
