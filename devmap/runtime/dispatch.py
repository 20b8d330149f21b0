"""A plan applied to a module: every weight to its home, every streamed block under its hooks."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, TypeVar

import torch

from devmap.devices.registry import backend_for
from devmap.errors import DevmapError, LoadError
from devmap.inventory.bulk import collector_paused
from devmap.runtime.components import Components
from devmap.runtime.handle import Handle
from devmap.runtime.hooks import Hooks, install
from devmap.runtime.preflight import disagreements, shortages
from devmap.runtime.residents import Progress, Resident, bind_residents, load_residents, silent
from devmap.runtime.storage.module_scan import ModuleScan, scan_module
from devmap.runtime.storage.read_requests import REQUEST_BYTES
from devmap.runtime.storage.readers import Readers
from devmap.runtime.storage.weights import Weight, Weights
from devmap.runtime.streaming.arrange import Arrangement, StreamedPlacement, arrange, cover
from devmap.runtime.streaming.counters import Counters
from devmap.runtime.streaming.engine import Engine
from devmap.runtime.streaming.prepare import is_prepared, make_blocks, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.runtime.storage.packing import PackedParameter
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["dispatch", "load_model"]

T = TypeVar("T")

_BUFFER_BYTES = 64 << 20
"""Of host memory that resident weights pass through."""


def dispatch(
    model: nn.Module,
    plan: Plan,
    *,
    inventory: Inventory | None = None,
    packings: Mapping[str, PackedParameter] | None = None,
    makers: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Place a module's weights as a plan says, and hook it so that it runs that way.

    Weights that are real are placed from where they are; those on meta are read from the inventory's
    checkpoint. Returns the same module, with `model.devmap`. Nothing is changed when this raises `LoadError`,
    and the module's own tables are changed only after all weights have arrived.

    Args:
        model: the module, with real weights or on meta.
        plan: for this model: its placements cover every tensor.
        inventory: with `checkpoint` and `mapping`, where weights are on meta.
        packings: how the parts of quantised parameters make them, by the parameters' names.
        makers: what computes weights that no piece of the checkpoint is, by name.
        progress: called with bytes done and bytes in total.

    Raises:
        LoadError: listing every missing, unexpected or misshapen tensor, and what in the plan does not fit
            this model.
        OutOfMemoryError: when a device has less room than the plan says.
        StreamError: when a weight cannot be read.
    """
    if "devmap" in model.__dict__:
        raise LoadError("this model is placed already", help="call model.devmap.remove() first")
    try:
        with collector_paused():
            return _dispatch(model, plan, inventory, packings or {}, makers or {}, progress or silent)
    except MemoryError as error:
        if isinstance(error, DevmapError):
            raise
        raise LoadError(
            "host memory ran out while the model was loaded",
            help="lower max_memory for cpu or offload.host_memory, or free memory on this machine",
        ) from error


def _dispatch(
    model: nn.Module,
    plan: Plan,
    inventory: Inventory | None,
    packings: Mapping[str, PackedParameter],
    makers: Mapping[str, Callable[[], torch.Tensor]],
    progress: Progress,
) -> nn.Module:
    found = scan_module(model)
    covering = cover(found, plan)
    weights = Weights(found, inventory, plan.dtype, packings, makers)
    problems = disagreements(found, covering, weights, plan, inventory)
    if not any(problem.code in {"uncovered", "device"} for problem in problems):
        arrangement = arrange(found, covering, weights, plan)
        problems += shortages(arrangement, weights, plan)
    if problems:
        raise LoadError(
            f"the plan cannot be applied: {len(problems)} problem{'s' * (len(problems) > 1)}",
            problems=problems,
            help=_HELP,
        )
    with torch.no_grad(), torch.inference_mode(mode=False):
        _apply(model, plan, found, weights, arrangement, progress)
    return model


_HELP = "resolve the config again for this checkpoint, and look at the checkpoint with `devmap inspect`"


def _apply(
    model: nn.Module,
    plan: Plan,
    found: ModuleScan,
    weights: Weights,
    arrangement: Arrangement,
    progress: Progress,
) -> None:
    readers = Readers(scratch_bytes=max(1 << 16, min(REQUEST_BYTES, plan.host_memory_bytes // 16)))
    engine = Engine(readers, Counters())
    try:
        residents = [
            Resident(weights[name], device, locations)
            for (name, device), locations in arrangement.residents.items()
        ]
        report = _Report(progress, [each.weight for each in residents], arrangement.streamed)
        placed = load_residents(
            residents,
            readers,
            buffer_bytes=max(1 << 16, min(_BUFFER_BYTES, plan.host_memory_bytes // 4)),
            limit_bytes=plan.host_memory_bytes,
            report=report,
        )
        blocks = make_blocks(arrangement.streamed, plan, engine, report)
        prepare(engine, blocks, plan)
    except BaseException:
        engine.close()
        raise
    bind_residents(residents, placed)
    for block in blocks.values():
        block.unbind()
    handle = Handle(
        plan,
        model,
        found.locations,
        _bytes_by_device(residents, arrangement.in_place_bytes),
        tuple(blocks.values()),
        engine,
        packings={
            owner: packing for owner in found.owners if (packing := weights.packing(owner)) is not None
        },
    )
    _finish(model, handle, arrangement, blocks)


class _Report:
    """Turns bytes that arrive into calls of the caller's progress."""

    def __init__(
        self, progress: Progress, residents: Sequence[Weight], placements: Sequence[StreamedPlacement]
    ) -> None:
        self._progress = progress
        self._total = sum(weight.nbytes for weight in residents) + sum(
            streamed.nbytes for streamed in placements if is_prepared(streamed)
        )
        self._done = 0
        progress(0, self._total)

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        self._progress(self._done, self._total)


def _bytes_by_device(residents: Sequence[Resident], in_place: Mapping[Device, int]) -> dict[int | str, int]:
    found = dict(in_place)
    for each in residents:
        found[each.device] = found.get(each.device, 0) + each.weight.nbytes
    return {device.plain: nbytes for device, nbytes in found.items()}


def _finish(
    model: nn.Module, handle: Handle, arrangement: Arrangement, blocks: Mapping[str, StreamedBlock]
) -> None:
    engine = handle.engine
    assert engine is not None
    if not blocks and len(arrangement.devices) <= 1:
        engine.close()
        handle.engine = None
    else:
        executing = {place.path: place.executes_on for place in handle.plan.placements}
        torch_device = {
            device: backend_for(device).torch_device
            for device in {*arrangement.regions.values(), *executing.values()}
        }
        values = {}
        for block in blocks.values():
            for binding in block.bindings:
                name = binding.location.owner
                values[name] = _value(engine, block, name)
        handle.hooks = Hooks()
        for prefix, part in _roots(model).items():
            hooks = install(
                part,
                engine,
                blocks=_below(prefix, {path: block for path, block in blocks.items() if block.index >= 0}),
                regions=_below(
                    prefix, {path: torch_device[device] for path, device in arrangement.regions.items()}
                ),
                spanning=_below(
                    prefix, {path: torch_device[device] for path, device in arrangement.spanning.items()}
                ),
                executes=_below(prefix, {path: torch_device[device] for path, device in executing.items()}),
                values=_below(prefix, values),
            )
            handle.hooks.handles += hooks.handles
            handle.hooks.attributes += hooks.attributes
        weakref.finalize(model, engine.close).atexit = False
        engine.read_ahead()
    for part in (model, *_roots(model).values()):
        part.__dict__["devmap"] = handle


def _roots(model: nn.Module) -> Mapping[str, nn.Module]:
    """Return what callers call, by what stands before the paths inside: the model, or its components."""
    if not isinstance(model, Components):
        return {"": model}
    return {f"{name}.": part for name, part in model.items()}


def _below(prefix: str, table: Mapping[str, T]) -> dict[str, T]:
    """Return what a table has below a component, by the paths inside it."""
    if not prefix:
        return dict(table)
    return {path[len(prefix) :]: value for path, value in table.items() if f"{path}.".startswith(prefix)}


def _value(engine: Engine, block: StreamedBlock, name: str) -> Callable[[], torch.Tensor]:
    return lambda: engine.value(block.home, name)


def load_model(
    model_on_meta: nn.Module,
    plan: Plan,
    inventory: Inventory,
    *,
    packings: Mapping[str, PackedParameter] | None = None,
    makers: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Read a checkpoint's weights to where the plan wants them.

    Disk weights stay in the checkpoint's own files.

    Args:
        model_on_meta: as `devmap.runtime.meta_build.build_on_meta` makes it; returned with its weights.
        plan: resolved for this model.
        inventory: with the checkpoint's files and the mapping of its tensors to the model's.
        packings: how the parts of quantised parameters make them, by the parameters' names.
        makers: what computes weights that no piece of the checkpoint is, by name.
        progress: called with bytes done and bytes in total.

    Raises:
        LoadError: listing everything that does not fit, before anything is read.
        OutOfMemoryError: when a device has less room than the plan says.
        StreamError: when a weight cannot be read.
    """
    if inventory.checkpoint is None or inventory.mapping is None:
        raise LoadError(
            "this inventory has no checkpoint behind it",
            help="read it with devmap.Inventory.from_checkpoint(path)",
        )
    return dispatch(
        model_on_meta, plan, inventory=inventory, packings=packings, makers=makers, progress=progress
    )
