"""A safetensors checkpoint as its headers describe it.

One file, a folder with or without an index, or an index.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.regular_files import expand_user, is_folder, is_there
from devmap.config.values.words import shown, shown_path
from devmap.errors import CheckpointError
from devmap.inventory.stored.header import StoredTensor, read_header
from devmap.inventory.stored.json_files import read_json
from devmap.inventory.stored.refusals import refuse_consolidated
from devmap.inventory.stored.weight_files import choose_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

__all__ = ["Checkpoint", "Damage", "StoredTensor", "read_headers"]


@dataclass(frozen=True)
class Checkpoint:
    """The safetensors files of one model, as their headers describe them."""

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, object]
    """`config.json`, empty where there is none."""


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong with a checkpoint."""

    code: str
    message: str


def read_headers(path: str | PathLike[str], *, variant: str | None = None) -> Checkpoint:
    """Describe a checkpoint from its headers, without torch and without reading a weight.

    Of a folder those files are read that Transformers or diffusers would load (`choose_files` says which);
    `variant` picks `model.VARIANT.safetensors` instead.

    Raises:
        CheckpointError: when it is absent, damaged, in another format or without such a variant; `problems`
            lists every fault.
    """
    path = expand_user(os.fspath(path))
    if not is_there(path):
        raise CheckpointError(
            f"there is no checkpoint at {shown_path(path)}",
            help="check model.checkpoint, which is relative to the config's folder",
        )
    folder = path if is_folder(path) else path.parent
    damage: list[str] = []
    chosen = choose_files(path, damage, variant=variant)
    tensors = _read_all(chosen.files, folder, damage)
    damage += _index_damage(chosen.promised, tensors)
    config = read_json(folder / "config.json", damage) if is_there(folder / "config.json") else {}
    if damage:
        found = "1 fault" if len(damage) == 1 else f"{len(damage)} faults"
        raise CheckpointError(
            f"the checkpoint '{path}' is damaged: {found}",
            help="fetch the files again, and compare their sizes with those of the source",
            problems=[Damage("DM021", message) for message in damage],
        )
    if all(file.name.startswith("consolidated") for file in chosen.files):
        refuse_consolidated(tensors, config, folder)
    return Checkpoint(folder, chosen.files, tensors, config)


def _read_all(files: Sequence[Path], folder: Path, damage: list[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found, faults = read_header(file)
        damage += [f"{file.relative_to(folder)} {fault}" for fault in faults]
        for tensor in found:
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                damage.append(f"{shown(tensor.name)} is in both {other.file.name} and {file.name}")
    return tensors


def _index_damage(promised: Mapping[str, Path], tensors: Mapping[str, StoredTensor]) -> list[str]:
    found: list[str] = []
    for name, file in promised.items():
        held = tensors.get(name)
        if held is None:
            found.append(f"the index says that {shown(name)} is in {file.name}, which does not have it")
        elif held.file is not file and held.file != file:
            found.append(
                f"the index says that {shown(name)} is in {file.name}, but it is in {held.file.name}"
            )
    return found
