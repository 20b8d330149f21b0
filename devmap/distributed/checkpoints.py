"""Checkpoints of trained stages, by torch.distributed.checkpoint: saved under one split, loaded under any.

Every tensor stands under the name that the whole model gives it, so a checkpoint knows nothing of stages. A
tied tensor stands under its first name and is written by the first stage that has it: under one key on two
ranks, torch would take one rank's values without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.checkpoint import filesystem, state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from devmap.distributed.values import Remote
from devmap.errors import CheckpointError, UsageError
from devmap.runtime.streaming.streamed_weight import StreamedWeight

if TYPE_CHECKING:
    from os import PathLike

    from devmap.distributed.engine import Spread

__all__ = ["load_checkpoint", "save_checkpoint"]

_STATE = "optimizer"


def save_checkpoint(
    spread: Spread, folder: str | PathLike[str], *, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Write all stages' weights to a folder that every rank sees, and what an optimizer keeps of each.

    Collective. Learning rates and the like are not written: they are the program's.

    Raises:
        UsageError: weights are streamed, whose numbers are in the checkpoint they came from.
    """
    with spread.borders.wire.guard():
        written: dict[str, Any] = {}
        for name, tensor in _tensors(spread).items():
            if _first_stage(spread, name) != spread.stage:
                continue
            written[name] = tensor.detach()
            for key, value in (optimizer.state.get(tensor, {}) if optimizer is not None else {}).items():
                written[f"{_STATE}.{name}.{key}"] = value
        state_dict_saver.save(
            written,
            storage_writer=_writer(folder, spread.borders.device),
            process_group=spread.borders.wire.control,
        )


def load_checkpoint(
    spread: Spread, folder: str | PathLike[str], *, optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Read this stage's weights from a folder, and what an optimizer kept of them, whatever the split was.

    Collective. The weights are changed in place.

    Raises:
        CheckpointError: the folder has no such checkpoint, or lacks tensors of this model or has them in
            other shapes; nothing has changed then.
        UsageError: weights are streamed.
    """
    with spread.borders.wire.guard():
        held = _metadata(folder)
        tensors = _tensors(spread)
        _check(tensors, held, folder)
        wanted: dict[str, Any] = {name: tensor.detach() for name, tensor in tensors.items()}
        states: dict[str, dict[str, str]] = {name: {} for name in tensors}
        if optimizer is not None:
            for key, stored in held.items():
                name, _, entry = key.removeprefix(f"{_STATE}.").rpartition(".")
                if key.startswith(f"{_STATE}.") and name in tensors:
                    states[name][entry] = key
                    wanted[key] = _room_for(stored, entry, tensors[name])
        state_dict_loader.load(wanted, checkpoint_id=folder, process_group=spread.borders.wire.control)
        if optimizer is not None:
            for name, entries in states.items():
                if entries:
                    optimizer.state[tensors[name]] = {entry: wanted[key] for entry, key in entries.items()}


def _tensors(spread: Spread) -> dict[str, torch.Tensor]:
    """Return what this stage has of the model's state, by the first name in the whole model."""
    found: dict[str, torch.Tensor] = {}
    for place in spread.parts.tensors:
        tensor = place.table[place.key]
        if isinstance(tensor, Remote):
            tensor = tensor.value.real if place.is_outer and place.stage == spread.stage else None
        if isinstance(tensor, StreamedWeight):
            raise UsageError(
                f"'{place.name}' is streamed, and is not written to or read from a checkpoint of stages",
                help="train with weights that stay in memory",
            )
        if tensor is not None and place.persistent:
            found.setdefault(place.owner, tensor)
    return found


def _first_stage(spread: Spread, owner: str) -> int:
    stages = [place.stage for place in spread.parts.tensors if place.owner == owner]
    return min((stage for stage in stages if stage is not None), default=0)


def _writer(folder: str | PathLike[str], device: torch.device) -> filesystem.FileSystemWriter:
    """Return torch's writer; it copies ahead by the streams of a device, where the device has any."""
    has_streams = device.type == "cpu" or hasattr(torch.get_device_module(device), "current_stream")
    if has_streams:
        return filesystem.FileSystemWriter(folder)
    return filesystem.FileSystemWriter(folder, per_thread_copy_ahead=0)


def _metadata(folder: str | PathLike[str]) -> dict[str, Any]:
    try:
        return dict(filesystem.FileSystemReader(folder).read_metadata().state_dict_metadata)
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"'{folder}' is no checkpoint of stages: {type(error).__name__}: {error}",
            help="give the folder that save_checkpoint wrote, on a disk that every rank sees",
        ) from error


def _check(tensors: dict[str, torch.Tensor], held: dict[str, Any], folder: str | PathLike[str]) -> None:
    for name, tensor in tensors.items():
        stored = held.get(name)
        if not isinstance(stored, TensorStorageMetadata):
            raise CheckpointError(f"'{folder}' has no '{name}'", help="give a checkpoint of this model")
        if tuple(stored.size) != tuple(tensor.shape):
            raise CheckpointError(
                f"'{folder}' has '{name}' as {list(stored.size)}, this model as {list(tensor.shape)}",
                help="give a checkpoint of this model",
            )


def _room_for(stored: Any, entry: str, parameter: torch.Tensor) -> Any:
    """Return what an entry of an optimizer's state is read into; steps are counted on the CPU."""
    if not isinstance(stored, TensorStorageMetadata):
        return None
    device = torch.device("cpu") if entry == "step" else parameter.device
    return torch.empty(tuple(stored.size), dtype=stored.properties.dtype, device=device)
