"""From a plan and a module: which weight stays on which device, and which weights are streamed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from devmap.config.values.device import DISK
from devmap.devices.registry import backend_for
from devmap.runtime.storage.weights import runs_as

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import torch

    from devmap.config.values.device import Device
    from devmap.inventory.model import TensorKind
    from devmap.plan.model import Placement, Plan
    from devmap.runtime.storage.module_scan import ModuleScan, TensorLocation
    from devmap.runtime.storage.weights import Weight

__all__ = ["Arrangement", "StreamedPlacement", "arrange", "cover", "divided"]


@dataclass(frozen=True)
class StreamedPlacement:
    """The weights of one streamed placement."""

    placement: Placement
    weights: tuple[Weight, ...]
    locations: tuple[TensorLocation, ...]
    is_module: bool
    """False for a tensor on a module that is split: it has no forward of its own, and is fetched when it is
    used."""

    @property
    def nbytes(self) -> int:
        """Bytes of its slab. A tied weight counts in each block that needs it."""
        return sum(weight.nbytes for weight in self.weights)


@dataclass(frozen=True)
class Arrangement:
    """Where everything goes."""

    residents: Mapping[tuple[str, Device], tuple[TensorLocation, ...]]
    """By owner and device the places that show this copy of the weight; without those that are in place."""
    in_place_bytes: Mapping[Device, int]
    """Of tensors that came with the module and are on their device, in their dtype: nothing is done to them.
    """
    streamed: tuple[StreamedPlacement, ...]
    devices: frozenset[Device]
    """All that execute something."""
    regions: Mapping[str, Device]
    """The modules whose inputs are moved, and the one device that everything inside executes on; empty where
    nothing ever moves."""
    spanning: Mapping[str, Device]
    """The modules whose parts execute on several devices, and the device of their first tensor, where their
    inputs go: what their code makes of them meets the first part's results."""


def cover(found: ModuleScan, plan: Plan) -> Sequence[Placement | None]:
    """Return the placement of each of the survey's locations, in their order.

    The tensor's own, or that of the nearest module around it. A plan may lack what costs nothing and is
    sure to be needed: a buffer that is computed goes where its neighbours execute, a tied tensor with the one
    that owns its bytes.
    """
    placements = {placement.path: placement for placement in plan.placements}
    by_module: dict[str, Placement | None] = {}
    for path in found.modules:
        own = placements.get(path)
        by_module[path] = own if own is not None or not path else by_module[path.rpartition(".")[0]]
    covering = [placements.get(location.name) or by_module[location.module] for location in found.locations]
    if None in covering:
        _cover_implied(found, covering)
    return covering


def _cover_implied(found: ModuleScan, covering: list[Placement | None]) -> None:
    by_owner: dict[str, Placement] = {}
    inside: dict[str, Placement] = {}
    for location, placement in zip(found.locations, covering, strict=True):
        if placement is None:
            continue
        by_owner.setdefault(location.owner, placement)
        path = location.module
        while path not in inside:
            inside[path] = placement
            path = path.rpartition(".")[0]
    for index, (location, placement) in enumerate(zip(found.locations, covering, strict=True)):
        if placement is None and location.owner in by_owner:
            covering[index] = by_owner[location.owner]
        elif placement is None and not location.persistent:
            path = location.module
            while path and path not in inside:
                path = path.rpartition(".")[0]
            covering[index] = inside.get(path)


def arrange(
    found: ModuleScan, covering: Sequence[Placement | None], weights: Mapping[str, Weight], plan: Plan
) -> Arrangement:
    """Sort every place of the module tree; `covering` is what `cover` says, with a placement for each.

    A buffer of a streamed block stays on the executing device, unless the plan offloads buffers; one that is
    computed and never saved always does. A weight of a streamed block that is resident on the executing
    device anyway, by a tie, is not streamed.
    """
    sides: dict[Device, _Side] = {}
    by_placement: dict[int, _Side] = {}
    streamed: dict[str, list[TensorLocation]] = {}
    for location, placement in zip(found.locations, covering, strict=True):
        assert placement is not None
        side = by_placement.get(id(placement))
        if side is None:
            device = placement.executes_on
            side = by_placement[id(placement)] = sides.get(device) or sides.setdefault(
                device, _Side(device, found, plan.dtype)
            )
        if placement.home is not placement.executes_on and placement.is_streamed:
            stays = location.kind == "buffer" and not (location.persistent and plan.offload_buffers)
            if not stays:
                streamed.setdefault(placement.path, []).append(location)
                continue
        side.add(location)
    placements = {placement.path: placement for placement in plan.placements} if streamed else {}
    blocks = []
    for path, locations in streamed.items():
        placement = placements[path]
        side = sides[placement.executes_on]
        moving = [location for location in locations if not side.add_tied(location)]
        if moving:
            owners = dict.fromkeys(location.owner for location in moving)
            blocks.append(
                StreamedPlacement(
                    placement,
                    tuple(weights[owner] for owner in owners),
                    tuple(moving),
                    is_module=path in found.modules,
                )
            )
    order = {path: index for index, path in enumerate(placements)}
    blocks.sort(key=lambda block: order[block.placement.path])
    executing = _executing(found, covering) if len(sides) > 1 or blocks else {}
    return Arrangement(
        {
            (owner, device): tuple(locations)
            for device, side in sides.items()
            for owner, locations in side.moving.items()
        },
        {device: side.in_place_bytes for device, side in sides.items() if side.in_place_bytes},
        tuple(blocks),
        frozenset(sides),
        _regions(found, executing, [each.path for each in plan.placements]) if executing else {},
        _spanning(found, covering, executing),
    )


class _Side:
    """What stays on one device: the tensors that have to be brought there, and those that are there."""

    def __init__(self, device: Device, found: ModuleScan, dtype: str | None) -> None:
        self.moving: dict[str, list[TensorLocation]] = {}
        self.in_place_bytes = 0
        self._in_place: set[str] = set()
        self._found = found
        self._dtype = dtype
        self._device = backend_for(device).torch_device
        self._as_it_is: dict[tuple[torch.dtype, TensorKind], bool] = {}

    def add(self, location: TensorLocation) -> None:
        """Add a location whose tensor stays here."""
        owner = location.owner
        if owner in self._in_place:
            return
        locations = self.moving.get(owner)
        if locations is not None:
            locations.append(location)
            return
        tensor = location.table[location.key]
        assert tensor is not None
        kind = location.kind if owner is location.name else self._found.owners[owner].kind
        as_it_is = self._as_it_is.get((tensor.dtype, kind))
        if as_it_is is None:
            as_it_is = self._as_it_is[tensor.dtype, kind] = (
                runs_as(tensor.dtype, self._dtype, kind) is tensor.dtype
            )
        if as_it_is and tensor.device == self._device:
            self._in_place.add(owner)
            self.in_place_bytes += tensor.nbytes
        else:
            self.moving[owner] = [location]

    def add_tied(self, location: TensorLocation) -> bool:
        """Return a place of a streamed block: whether its tensor stays here anyway, and is shown there."""
        locations = self.moving.get(location.owner)
        if locations is not None:
            locations.append(location)
        return locations is not None or location.owner in self._in_place


def _executing(found: ModuleScan, covering: Sequence[Placement | None]) -> dict[str, set[Device]]:
    """Return the devices that execute something in each module that has tensors."""
    executes: dict[str, set[Device]] = {}
    for location, placement in zip(found.locations, covering, strict=True):
        assert placement is not None
        executes.setdefault(location.module, set()).add(placement.executes_on)
    for path in reversed(list(found.modules)):  # a module stands before those inside it
        if path and path in executes:
            executes.setdefault(path.rpartition(".")[0], set()).update(executes[path])
    return executes


def _regions(
    found: ModuleScan, executes: Mapping[str, set[Device]], placements: Iterable[str]
) -> dict[str, Device]:
    """Return where inputs are moved: at the outermost modules that execute on one device.

    Not at containers that are never called, such as `nn.ModuleList`. Inside a region again at what callers
    reach for directly: modules that hold several placements (`generate` calls the encoder), and placed ones
    that are no members of a list (a model of images and text calls its embeddings past the text model that
    holds them). The members of lists, the blocks, are called by the module around them alone.
    """
    placements = list(placements)
    named = {path for path in placements if not path.rpartition(".")[2].isdecimal()}
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
            if path in above or path in named or len(executes[outer]) > 1:
                regions[path] = next(iter(devices))
    return regions


def _spanning(
    found: ModuleScan, covering: Sequence[Placement | None], executes: Mapping[str, set[Device]]
) -> dict[str, Device]:
    first: dict[str, Device] = {}
    for location, placement in zip(found.locations, covering, strict=True):
        path = location.module
        while path not in first:  # those above a module that is there are there
            assert placement is not None
            first[path] = placement.executes_on
            path = path.rpartition(".")[0]
    return {
        path: first[path]
        for path, devices in executes.items()
        if len(devices) > 1 and _has_forward(found, path)
    }


def _has_forward(found: ModuleScan, path: str) -> bool:
    return type(found.modules[path]).forward is not nn.Module.forward


# Blocks that execute on the CPU and are larger than host memory may hold: streamed module by module instead
# of as a whole.
#
# On an accelerator a block of any size goes through the ring in parts, since its slot is on the device. On
# the CPU host memory is where the block runs, so what is brought in at a time has to be smaller: the modules
# inside it that hold tensors.


def divided(block: StreamedPlacement, limit_bytes: int) -> Iterator[StreamedPlacement]:
    """Yield the block, or the blocks that take its place where it is too large."""
    placement = block.placement
    if (
        placement.home != DISK
        or placement.executes_on.is_accelerator
        or not block.is_module
        or block.nbytes <= limit_bytes
    ):
        yield block
        return
    weights = {weight.name: weight for weight in block.weights}
    by_module: dict[str, list[TensorLocation]] = {}
    for location in block.locations:
        by_module.setdefault(location.module, []).append(location)
    for path, locations in by_module.items():
        owners = dict.fromkeys(location.owner for location in locations)
        yield StreamedPlacement(
            placement._replace(path=path),
            tuple(weights[owner] for owner in owners),
            tuple(locations),
            is_module=True,
        )
