"""Whether a plan, a module and a checkpoint belong together: every fault, before anything is placed."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK
from devmap.devices.registry import backend_for
from devmap.errors import DeviceError
from devmap.runtime.storage.chunks import least_part_bytes
from devmap.runtime.storage.homes import is_mappable
from devmap.runtime.storage.page_cache import can_populate
from devmap.runtime.storage.weights import lay_out, torch_dtype
from devmap.runtime.streaming.arrange import divided

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.checkpoint import StoredTensor
    from devmap.inventory.stored.mapping import Box, Piece, WeightMapping
    from devmap.plan.model import Placement, Plan
    from devmap.runtime.storage.module_scan import ModuleScan
    from devmap.runtime.storage.weights import Weight
    from devmap.runtime.streaming.arrange import Arrangement, StreamedPlacement

__all__ = ["LoadProblem", "at_once_bytes", "disagreements", "shortages", "uncut_bytes", "unreadable"]


@dataclass(frozen=True, slots=True)
class LoadProblem:
    """One reason why a plan cannot be applied."""

    code: str
    """A word: `missing`, `unexpected`, `shape`, `dtype`, `uncovered`, `unknown-placement`, `device`, `file`,
    `offload-folder` or `host-memory`."""
    message: str


def disagreements(
    found: ModuleScan,
    covering: Sequence[Placement | None],
    weights: Mapping[str, Weight],
    plan: Plan,
    inventory: Inventory | None,
) -> list[LoadProblem]:
    """Return what does not fit, each fault once, in the model's order.

    `covering` is what `devmap.runtime.streaming.arrange.cover` says.
    """
    # The others came with the module.
    absent = [part for owner in found.on_meta for part in weights[owner].plain]
    return [
        *_of_placements(found, covering, plan),
        *_of_classes(found, weights),
        *_of_weights(found, absent, inventory),
        *_of_files(weight.stored for weight in absent),
    ]


def _of_placements(
    found: ModuleScan, covering: Sequence[Placement | None], plan: Plan
) -> Iterator[LoadProblem]:
    kinds: dict[tuple[int, int], bool] = {}
    """By home and executing device, which few objects stand for, whether the two go together."""
    devices: dict[int, Device] = {}
    for placement in plan.placements:
        home, device = placement.home, placement.executes_on
        if placement.path not in found.modules and not found.has(placement.path):
            yield LoadProblem(
                "unknown-placement", f"the plan places '{placement.path}', which this model does not have"
            )
        pair = id(home), id(device)
        if pair not in kinds:
            kinds[pair] = device != DISK and (not placement.is_streamed or home in {CPU, DISK})
            devices[id(device)] = device
        if not kinds[pair]:
            yield LoadProblem("device", f"'{placement.path}' cannot live on {home} and execute on {device}")
    for location, covered in zip(found.locations, covering, strict=True):
        if covered is None:
            yield LoadProblem("uncovered", f"the plan gives no device for '{location.name}'")
    for device in sorted({*devices.values()} - {DISK}):
        try:
            backend_for(device)
        except DeviceError as error:
            yield LoadProblem("device", error.message)


def _of_classes(found: ModuleScan, weights: Mapping[str, Weight]) -> Iterator[LoadProblem]:
    """Yield live tensors of other libraries' classes, which keep more than their bytes."""
    for name in found.owners:
        kind = type(found.tensor(name))
        if kind.__module__.partition(".")[0] in {"torch", "devmap"} or weights[name].packing is not None:
            continue
        yield LoadProblem(
            "class",
            f"'{name}' is a {kind.__name__} of {kind.__module__.partition('.')[0]}, which cannot be moved or "
            f"streamed as a plain tensor: save the model with save_pretrained(), and name its folder as "
            f"model.checkpoint",
        )


def unreadable(weights: Iterable[Weight]) -> list[LoadProblem]:
    """Return what keeps stored weights from being read, each fault once.

    Those that are live or made are passed over.
    """
    stored = [weight for weight in weights if not weight.has_value]
    problems = [
        LoadProblem("missing", f"the checkpoint does not have '{weight.name}'")
        for weight in stored
        if not weight.stored
    ]
    of_pieces = [problem for weight in stored if weight.stored for problem in _of_pieces(weight)]
    return [*problems, *of_pieces, *_of_files(weight.stored for weight in stored)]


def _of_weights(
    found: ModuleScan, absent: Iterable[Weight], inventory: Inventory | None
) -> Iterator[LoadProblem]:
    for weight in absent:
        name = weight.name
        if weight.maker is not None:
            continue
        if not weight.stored:
            if any(location.persistent for location in found.locations if location.owner == name):
                where = (
                    "no checkpoint was given"
                    if inventory is None or inventory.checkpoint is None
                    else "the checkpoint does not have it"
                )
                yield LoadProblem("missing", f"'{name}' is on meta, and {where}")
            else:
                yield LoadProblem(
                    "missing",
                    f"the computed buffer '{name}' is on meta; build the model with "
                    f"devmap.runtime.meta_build, or fill it first",
                )
        else:
            yield from _of_pieces(weight)
    if inventory is not None and inventory.mapping is not None:
        yield from _of_surplus(inventory, inventory.mapping)


def _of_surplus(inventory: Inventory, mapping: WeightMapping) -> Iterator[LoadProblem]:
    """Yield stored tensors that would fit a place which nothing stored fills: a name was not followed.

    Any other is left unread, as Transformers leaves it.
    """
    held = inventory.checkpoint.tensors if inventory.checkpoint is not None else {}
    empty = {inventory.tensors[name].shape: name for name in mapping.missing if name in inventory.tensors}
    for name in mapping.unmapped:
        place = empty.get(held[name].shape) if name in held else None
        if place is not None:
            yield LoadProblem(
                "unexpected",
                f"the checkpoint has '{name}', which this model has no place for, and nothing for '{place}' "
                "of the same shape",
            )


def _of_pieces(weight: Weight) -> Iterator[LoadProblem]:
    covered = 0
    for stored, piece in weight.stored:
        if torch_dtype(stored.dtype) is None:
            yield LoadProblem(
                "dtype", f"'{stored.name}' is stored as {stored.dtype}, which torch does not have"
            )
            return
        problem = _misfit(weight, stored, piece)
        if problem:
            yield LoadProblem("shape", problem)
            return
        covered += math.prod(_extents(piece.take, stored.shape))
    if covered != math.prod(weight.shape):
        yield LoadProblem(
            "shape",
            f"'{weight.name}' has {math.prod(weight.shape):,} elements in the model, the checkpoint gives "
            f"{covered:,} of them",
        )


def _misfit(weight: Weight, stored: StoredTensor, piece: Piece) -> str:
    wanted, given = weight.shape, stored.shape
    if not (_is_inside(piece.take, given) and _is_inside(piece.put, wanted)):
        return (
            f"'{weight.name}' is {list(wanted)} in the model; '{stored.name}' of {list(given)} "
            "in the checkpoint does not make a part of it"
        )
    taken, filled = _extents(piece.take, given), _extents(piece.put, wanted)
    if piece.permute is not None:
        taken = tuple(taken[axis] for axis in piece.permute)
    whole = piece.put is None and piece.take is None  # stacking one tensor adds a dimension of size 1
    same = _squeezed(taken) == _squeezed(filled) if whole else math.prod(taken) == math.prod(filled)
    if same:
        return ""
    return (
        f"'{weight.name}' is {list(wanted)} in the model and {list(given)} "
        f"in the checkpoint ('{stored.name}')"
    )


def _squeezed(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _is_inside(box: Box | None, shape: Sequence[int]) -> bool:
    return box is None or (
        len(box) == len(shape)
        and all(0 <= start <= end <= size for (start, end), size in zip(box, shape, strict=True))
    )


def _extents(box: Box | None, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape) if box is None else tuple(end - start for start, end in box)


def _of_files(sources: Iterable[Sequence[tuple[StoredTensor, Piece]]]) -> Iterator[LoadProblem]:
    ends: dict[str, tuple[StoredTensor, int]] = {}
    seen: set[tuple[str, str]] = set()
    for source in sources:
        for stored, _ in source:
            key = str(stored.file)
            if (key, stored.name) in seen:
                continue
            seen.add((key, stored.name))
            dtype = torch_dtype(stored.dtype)
            if dtype is not None and math.prod(stored.shape) * dtype.itemsize != stored.nbytes:
                yield LoadProblem(
                    "file",
                    f"{key}: '{stored.name}' of {list(stored.shape)} {stored.dtype} cannot take "
                    f"{stored.nbytes:,} bytes",
                )
            end = stored.offset + stored.nbytes
            if key not in ends or ends[key][1] < end:
                ends[key] = (stored, end)
    for key, (stored, end) in ends.items():
        try:
            size = stored.file.stat().st_size
        except OSError as error:
            yield LoadProblem("file", f"{key}: {error.strerror or error}")
            continue
        if size < end:
            yield LoadProblem(
                "file",
                f"{key}: '{stored.name}' ends at byte {end:,}, but the file has {size:,}: it is cut short",
            )


def shortages(arrangement: Arrangement, weights: Mapping[str, Weight], plan: Plan) -> list[LoadProblem]:
    """Return what the plan does not provide for.

    A folder for weights without a file, host memory for the largest block.
    """
    problems = []
    for block in arrangement.streamed:
        live = [part.name for weight in block.weights for part in weight.plain if part.has_value]
        if block.placement.home == DISK and live and plan.offload_folder is None:
            problems.append(
                LoadProblem(
                    "offload-folder",
                    f"'{block.placement.path}' goes to disk, but '{live[0]}' has no file behind it and no "
                    f"offload folder is given",
                )
            )
        if (
            block.placement.home == DISK
            and live
            and plan.offload_folder is not None
            and not _can_write(Path(plan.offload_folder))
        ):
            problems.append(
                LoadProblem(
                    "offload-folder", f"the offload folder '{plan.offload_folder}' cannot be written to"
                )
            )
        needed = at_once_bytes(block) if block.placement.home == DISK else 0
        if needed > plan.host_memory_bytes:
            problems.append(_short_of_memory(f"streaming '{block.placement.path}' from disk", needed, plan))
    for name, device in arrangement.residents:
        if device.is_accelerator:
            needed = uncut_bytes(weights[name])
            if needed > plan.host_memory_bytes:
                problems.append(_short_of_memory(f"converting '{name}' on its way to {device}", needed, plan))
    return problems


def _can_write(folder: Path) -> bool:
    """Return whether files can be made there.

    A folder that does not exist yet is made in the nearest one that does.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def uncut_bytes(weight: Weight) -> int:
    """Return the bytes of host memory that a weight needs at once while it is placed on an accelerator.

    A few where it can be cut.
    """
    return least_part_bytes(lay_out([weight]))


def at_once_bytes(block: StreamedPlacement) -> int:
    """Return the bytes of host memory that a block on disk needs at once while it is streamed.

    On its way to an accelerator that is no more than its largest weight that cannot be cut. On the CPU it is
    nothing where the block runs from the mapped file, else the largest of the modules inside that hold
    tensors.
    """
    if block.placement.executes_on.is_accelerator:
        return max(uncut_bytes(weight) for weight in block.weights)
    plain = [part for weight in block.weights for part in weight.plain]
    if can_populate() and all(part.has_value or is_mappable(part) for part in plain):
        return 0
    return max(part.nbytes for part in divided(block, 0))


def _short_of_memory(what: str, nbytes: int, plan: Plan) -> LoadProblem:
    return LoadProblem(
        "host-memory",
        f"{what} needs {nbytes:,} bytes of host memory at once; offload.host_memory is "
        f"{plan.host_memory_bytes:,}",
    )
