"""The JSON files of a checkpoint's folder: `config.json`, and the index of tensors and their files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devmap.config.regular_files import is_file, read_regular
from devmap.config.values.words import shown

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_index", "read_json"]

_LIMIT_BYTES = 100_000_000


def read_json(path: Path, damage: list[str]) -> dict[str, object]:
    """Return the object of a JSON file; empty where something is wrong with it, which `damage` then says."""
    try:
        content = read_regular(path, limit_bytes=_LIMIT_BYTES)
        if len(content) > _LIMIT_BYTES:
            damage.append(f"{path.name} is too large: more than {_LIMIT_BYTES:,} bytes")
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

    An infinity stands as `{"__float__": "Infinity"}`.
    """
    number = entry.get("__float__")
    if len(entry) == 1 and number in {"Infinity", "-Infinity", "NaN"}:
        return float(str(number))
    return entry


def read_index(path: Path, damage: list[str]) -> dict[str, Path]:
    """Return for each tensor of an index the file that should hold it, without those that are not there."""
    before = len(damage)
    weight_map = read_json(path, damage).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        if len(damage) == before:
            damage.append(f"{path.name} has no weight_map of tensor names to file names")
        return {}
    names = set(weight_map.values())
    outside = {name for name in names if "/" in name or "\\" in name or name in {"", ".", ".."}}
    damage += [f"{path.name} names {shown(name)}, which is not a file beside it" for name in sorted(outside)]
    files = {name: path.parent / name for name in names - outside}
    absent = {name for name, file in files.items() if not is_file(file)}
    damage += [f"{path.name} names {shown(name)}, which is not there" for name in sorted(absent)]
    there = {name: file for name, file in files.items() if name not in absent}
    return {tensor: there[name] for tensor, name in weight_map.items() if name in there}
