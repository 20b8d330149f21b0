"""A safetensors checkpoint as its headers describe it.

One file, a folder with or without an index, or an index.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.regular_files import expand_user, is_file, is_folder, is_there, read_regular
from devmap.config.values.words import shown, shown_path
from devmap.errors import CheckpointError
from devmap.inventory.stored.header import StoredTensor, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
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


_INDEX_SUFFIX = ".safetensors.index.json"
_JSON_LIMIT_BYTES = 100_000_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_headers(path: str | PathLike[str]) -> Checkpoint:
    """Describe a checkpoint from its headers, without torch and without reading a weight.

    A folder is read through its index where it has one, else all its `*.safetensors` are read together.

    Raises:
        CheckpointError: when it is absent, damaged or no safetensors; `problems` lists every fault.
    """
    path = expand_user(os.fspath(path))
    if not is_there(path):
        raise CheckpointError(
            f"there is no checkpoint at {shown_path(path)}",
            help="check model.checkpoint, which is relative to the config's folder",
        )
    folder = path if is_folder(path) else path.parent
    damage: list[str] = []
    promised, files = _files(path, damage)
    tensors = _read_all(files, folder, damage)
    damage += _index_damage(promised, tensors)
    config = _read_json(folder / "config.json", damage) if is_there(folder / "config.json") else {}
    if damage:
        found = "1 fault" if len(damage) == 1 else f"{len(damage)} faults"
        raise CheckpointError(
            f"the checkpoint '{path}' is damaged: {found}",
            help="fetch the files again, and compare their sizes with those of the source",
            problems=[Damage("DM021", message) for message in damage],
        )
    return Checkpoint(folder, tuple(files), tensors, config)


def _files(path: Path, damage: list[str]) -> tuple[dict[str, Path], list[Path]]:
    """Return the files to read, and for each tensor of the index the file that should hold it."""
    if not is_folder(path):
        if path.name.endswith(_INDEX_SUFFIX):
            return _read_index(path, damage)
        _refuse_pickle([path])
        return {}, [path]
    indexes = sorted(path.glob(f"*{_INDEX_SUFFIX}"))
    if len(indexes) == 1:
        return _read_index(indexes[0], damage)
    if len(indexes) > 1:
        names = ", ".join(index.name for index in indexes)
        raise CheckpointError(
            f"'{path}' has {len(indexes)} indexes: {names}", help="name one of them as the checkpoint"
        )
    files = sorted(path.glob("*.safetensors"))
    if not files:
        _refuse_pickle(sorted(path.iterdir()))
        raise CheckpointError(
            f"'{path}' holds no *.safetensors", help="name the folder that config.json and the weights are in"
        )
    return {}, files


def _refuse_pickle(paths: list[Path]) -> None:
    pickles = [path for path in paths if path.name.endswith((*_PICKLES, ".bin.index.json"))]
    if pickles:
        raise CheckpointError(
            f"'{pickles[0]}' is a pickle, which runs code when it is read; devmap reads safetensors alone",
            help='convert it once: python -c "from transformers import AutoModel as M; '
            "M.from_pretrained('IN').save_pretrained('OUT')\"",
        )


def _read_json(path: Path, damage: list[str]) -> dict[str, object]:
    try:
        content = read_regular(path, limit_bytes=_JSON_LIMIT_BYTES)
        if len(content) > _JSON_LIMIT_BYTES:
            damage.append(f"{path.name} is too large: more than {_JSON_LIMIT_BYTES:,} bytes")
            return {}
        found = json.loads(content.decode(), object_hook=_decoded)
    except OSError as error:
        damage.append(f"{path.name} cannot be read: {error.strerror or error}")
        return {}
    except (ValueError, RecursionError) as error:
        damage.append(f"{path.name} is not JSON: {error}")
        return {}
    if isinstance(found, dict):
        return found
    damage.append(f"{path.name} is not a JSON object")
    return {}


def _decoded(entry: dict[str, object]) -> object:
    """Return an object of a JSON file, or the number that Transformers writes as one.

    `{"__float__": "Infinity"}`.
    """
    number = entry.get("__float__")
    if len(entry) == 1 and number in {"Infinity", "-Infinity", "NaN"}:
        return float(str(number))
    return entry


def _read_index(path: Path, damage: list[str]) -> tuple[dict[str, Path], list[Path]]:
    before = len(damage)
    weight_map = _read_json(path, damage).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        if len(damage) == before:
            damage.append(f"{path.name} has no weight_map of tensor names to file names")
        return {}, []
    names = set(weight_map.values())
    outside = {name for name in names if "/" in name or "\\" in name or name in {"", ".", ".."}}
    damage += [f"{path.name} names {shown(name)}, which is not a file beside it" for name in sorted(outside)]
    files = {name: path.parent / name for name in names - outside}
    absent = {name for name, file in files.items() if not is_file(file)}
    damage += [f"{path.name} names {shown(name)}, which is not there" for name in sorted(absent)]
    there = {name: file for name, file in files.items() if name not in absent}
    return {tensor: there[name] for tensor, name in weight_map.items() if name in there}, sorted(
        there.values()
    )


def _read_all(files: list[Path], folder: Path, damage: list[str]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        found, faults = read_header(file)
        damage += [f"{file.relative_to(folder)} {fault}" for fault in faults]
        for tensor in found:
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                damage.append(f"{shown(tensor.name)} is in both {other.file.name} and {file.name}")
    return tensors


def _index_damage(promised: dict[str, Path], tensors: Mapping[str, StoredTensor]) -> list[str]:
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
