"""One model over the processes of a group: each loads and runs its stage, all run the model's outer code.

How to call it, for a model under `torchrun`:

1. Every rank builds the module on meta, as for one machine (`devmap.api.models.building.build`: `Built` has
   the module, the inventory, `packings` and `makers`), and has the same `assignment` of module paths to
   stages. Rank `r` of the group is stage `r`.
2. Every rank has its own stage's plan: an ordinary plan whose placements cover the modules of its stage.
3. `spread(built.model, plan, assignment, inventory=built.inventory, packings=built.packings,
   makers=built.makers, group=group)` reads this stage's weights and returns a `Spread`; `built.finish(model)`
   comes after it. `model.devmap` is the ordinary handle of this stage, `model.devmap_stages` the `Spread`.
4. Every rank then calls `model(...)` or `model.generate(...)` with arguments of the same structure. The
   values are rank 0's, and every rank gets the whole output.

A model with real weights is spread likewise, without an inventory.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.config.values.device import CPU
from devmap.devices.registry import backend_for
from devmap.distributed.calls import PartCalls
from devmap.distributed.generation import RootCalls
from devmap.distributed.microbatches import Microbatches
from devmap.distributed.parts import Parts, find_parts
from devmap.distributed.values import Borders, Remote
from devmap.distributed.wire import Traffic, Wire
from devmap.errors import UsageError
from devmap.plan.model import Placement
from devmap.runtime.dispatch import dispatch
from devmap.runtime.storage.module_scan import scan_module
from devmap.runtime.storage.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch.distributed as dist

    from devmap.distributed.failures import Watch
    from devmap.distributed.parts import StageTensor
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.runtime.residents import Progress
    from devmap.runtime.storage.packing import PackedParameter

__all__ = ["Spread", "Tie", "spread"]


@dataclass(frozen=True)
class Tie:
    """One parameter that several stages have a copy of."""

    names: Mapping[int, str]
    """By stage, the first name that it has there."""


@dataclass(eq=False)
class Spread:
    """A model spread over the ranks of a group, as this rank has it."""

    model: nn.Module
    parts: Parts
    borders: Borders
    calls: PartCalls
    root: RootCalls
    ties: tuple[Tie, ...]
    """The parameters that several stages have."""
    changed: list[tuple[nn.Module, str]]
    """The attributes that were set on modules."""

    @property
    def stage(self) -> int:
        """This rank's stage."""
        return self.borders.wire.rank

    @property
    def traffic(self) -> Traffic:
        """What went over this rank's borders so far, in bytes and tensors."""
        wires = [self.borders.wire, *self.root.microbatches.wires]
        return Traffic(
            *(sum(column) for column in zip(*(astuple(wire.traffic) for wire in wires), strict=True))
        )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield this stage's parameters, each once."""
        for name, parameter in self.model.named_parameters():
            if not isinstance(parameter, Remote):
                yield name, parameter


def spread(
    model: nn.Module,
    plan: Plan,
    assignment: Mapping[str, int],
    *,
    inventory: Inventory | None = None,
    packings: Mapping[str, PackedParameter] | None = None,
    makers: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    group: dist.ProcessGroup | None = None,
    microbatches: int = 1,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Spread:
    """Load this rank's stage of a model, and let the model run over all ranks of a group.

    Collective: each rank of the group calls it, with its own plan and the same assignment. The weights of
    other stages are neither read nor kept. The module is changed in place.

    Args:
        model: on meta, but for what is computed and not loaded, or with real weights; in eval mode.
        plan: places this stage's tensors on this rank's devices.
        assignment: paths of modules or parameters, and the stage (a rank of the group) of each; the longest
            prefix of a name counts. A tied tensor is loaded by each stage that has a module with it.
        inventory: with the checkpoint's files and the mapping of its tensors, where weights are on meta.
        packings: how the parts of quantised parameters make them, by the parameters' names.
        makers: what computes weights that no piece of the checkpoint is, by name.
        group: the process group; left out, all processes.
        microbatches: into how many parts `generate` divides a batch, so that no stage waits for all the
            others: where tokens are not drawn, and nothing that is passed looks at the batch as a whole.
        progress: called with bytes done and bytes in total, of this stage.
        watch: finds ranks that fail while this one waits for them.

    Raises:
        UsageError: a tensor has no stage, or a stage is no rank of the group.
        LoadError, OutOfMemoryError, StreamError: as `devmap.runtime.dispatch.load_model` raises them, for
            this stage; the module has its foreign tensors again then.
    """
    wire = Wire.over(group, watch=watch)
    wrong = sorted({stage for stage in assignment.values() if not 0 <= stage < wire.size})
    if wrong:
        raise UsageError(
            f"stage {wrong[0]} is assigned, but there are {wire.size} processes, for stages 0 to "
            f"{wire.size - 1}",
            help="start as many processes as the plan has stages",
        )
    found = scan_module(model)
    parts = find_parts(found, assignment, plan.no_split_module_classes)
    weights = Weights(found, inventory, plan.dtype, packings, makers)
    dtypes = {location.name: weights[location.owner].dtype for location in found.locations}
    ties = _ties(parts)
    # What is computed and not loaded stays on every rank: outer code may use it.
    foreign = [
        (place, place.table[place.key])
        for place in parts.tensors
        if place.persistent and place.stage not in {None, wire.rank}
    ]
    for place, _ in foreign:
        place.table[place.key] = None
    try:
        dispatch(
            model,
            _with_common(plan, parts),
            inventory=inventory,
            packings=packings,
            makers=makers,
            progress=progress,
        )
    except BaseException:
        for place, tensor in foreign:
            place.table[place.key] = tensor
        raise
    device = next(
        (backend_for(place.executes_on).torch_device for place in plan.placements), torch.device("cpu")
    )
    borders = Borders(wire, device)
    for place, tensor in foreign:
        assert tensor is not None
        dtype = dtypes[place.name]
        if place.is_outer:
            assert place.stage is not None
            place.table[place.key] = _kept(borders.held_by(place.stage, tensor.shape, dtype), place, parts)
        else:
            why = f"'{place.name}', which stage {place.stage} has"
            assert place.stage is not None
            place.table[place.key] = borders.lost(tensor.shape, dtype, why, place.stage)
    for place in parts.tensors:
        real = place.table[place.key]
        if place.is_outer and place.stage == wire.rank:
            assert real is not None
            place.table[place.key] = _kept(
                borders.held_by(wire.rank, real.shape, real.dtype, real), place, parts
            )
    calls = PartCalls(borders, parts.parts)
    outer = [place for place in parts.tensors if place.is_outer]
    root = RootCalls(model, borders, Microbatches(model, borders, microbatches, outer))
    changed = [*calls.install(), *root.install()]
    handle = Spread(model, parts, borders, calls, root, ties, changed)
    model.__dict__["devmap_stages"] = handle
    return handle


def _kept(remote: Remote, place: StageTensor, parts: Parts) -> Remote:
    """Return a remote of outer code's own tensor, numbered apart from what parts give."""
    remote.value.label = -1 - parts.tensors.index(place)
    return remote


def _ties(parts: Parts) -> tuple[Tie, ...]:
    names: dict[str, dict[int, str]] = {}
    for place in parts.tensors:
        if isinstance(place.table[place.key], nn.Parameter) and place.stage is not None:
            names.setdefault(place.owner, {}).setdefault(place.stage, place.name)
    return tuple(Tie(dict(sorted(held.items()))) for held in names.values() if len(held) > 1)


def _with_common(plan: Plan, parts: Parts) -> Plan:
    """Return the plan with places for saved buffers of outer code that are no stage's: on every rank."""
    covered = {placement.path for placement in plan.placements}
    common = [place for place in parts.tensors if place.stage is None and place.is_outer]
    device = next((placement.executes_on for placement in plan.placements), CPU)
    more = []
    for place in common:
        path = place.name
        while path and path not in covered:
            path = path.rpartition(".")[0]
        tensor = place.table[place.key]
        if path not in covered and tensor is not None:
            more.append(Placement(place.name, device, device, tensor.nbytes))
    return replace(plan, placements=(*plan.placements, *more)) if more else plan
