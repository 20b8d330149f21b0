"""Which safetensors files of a folder are the model.

A folder often holds several sets: one file and its shards, a half-precision variant, the vendor's own
consolidated file, an adapter. The choice follows what Transformers and diffusers load:

1. `model.safetensors`, unless an index names it as one of its files.
2. The files of the index; a single `diffusion_pytorch_model.safetensors` where some of them are absent.
3. Without an index the shards `NAME-00001-of-00003.safetensors`, else all other files together.
4. `consolidated*.safetensors`, or the only variant, where nothing else is there.

Adapters (`adapter_model.safetensors`) are never the model. A variant (`model.fp16.safetensors`) is read where
the config asks for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from devmap.config.regular_files import is_folder
from devmap.config.values.words import shown
from devmap.errors import CheckpointError
from devmap.inventory.stored.json_files import read_index
from devmap.inventory.stored.refusals import INDEX, refuse_file, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["WeightFiles", "choose_files"]


@dataclass(frozen=True)
class WeightFiles:
    """The files of one model."""

    files: tuple[Path, ...]
    promised: Mapping[str, Path] = field(default_factory=dict)
    """For each tensor of the index the file that should hold it; empty without an index."""


_STEM = r"(?:diffusion_pytorch_)?model"
_SHARD = r"-\d+-of-\d+"
_VARIANT_FILE = re.compile(rf"{_STEM}(?:{_SHARD})?\.(?P<variant>[\w-]+?)(?:{_SHARD})?\.safetensors\Z")
_VARIANT_INDEX = re.compile(
    rf"{_STEM}(?:\.(?P<before>[\w-]+))?\.safetensors\.index(?:\.(?P<after>[\w-]+))?\.json\Z"
)
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)(?P<end>(?:\.[\w-]+)?\.safetensors)\Z")


def choose_files(path: Path, damage: list[str], *, variant: str | None = None) -> WeightFiles:
    """Return the files of the model at `path`, a folder, a safetensors file or an index.

    Args:
        path: what the config names.
        damage: takes what is wrong with an index, in sentences.
        variant: the middle part of the files' names (`fp16` of `model.fp16.safetensors`); None for the files
            without one.

    Raises:
        CheckpointError: when the folder holds no weights that devmap reads, or sets of which none is
            meant more than the others.
    """
    if is_folder(path):
        return _in_folder(path, damage, variant)
    if variant is not None:
        raise CheckpointError(
            f"'{path}' is a file, and model.variant names files of a folder",
            help="name the folder as model.checkpoint, or leave model.variant out",
        )
    if INDEX.match(path.name):
        return _by_index(path, damage)
    refuse_file(path)
    return WeightFiles((path,))


def _by_index(path: Path, damage: list[str]) -> WeightFiles:
    promised = read_index(path, damage)
    return WeightFiles(tuple(sorted(set(promised.values()))), promised)


def _in_folder(folder: Path, damage: list[str], variant: str | None) -> WeightFiles:
    refuse_folder(folder)
    files = sorted(folder.glob("*.safetensors"))
    indexes = [path for path in sorted(folder.glob("*.json")) if INDEX.match(path.name)]
    if variant is not None:
        return _variant(folder, files, indexes, damage, variant)
    plain = [file for file in files if _is_plain(file)]
    own = [index for index in indexes if _variant_of(index) is None and not _is_consolidated(index)]
    if len(own) > 1:
        names = ", ".join(index.name for index in own)
        raise CheckpointError(
            f"'{folder}' has {len(own)} indexes: {names}", help="name one of them as the checkpoint"
        )
    single = next((file for file in plain if file.name == "model.safetensors"), None)
    if own:
        return _index_or_single(own[0], single, plain, damage)
    if single is not None:
        return WeightFiles((single,))
    return WeightFiles(
        tuple(_shards(plain, damage) if plain else _last_resort(folder, files, indexes, damage))
    )


def _index_or_single(index: Path, single: Path | None, plain: list[Path], damage: list[str]) -> WeightFiles:
    faults: list[str] = []
    chosen = _by_index(index, faults)
    if single is not None and single not in chosen.files:
        return WeightFiles((single,))
    alone = [file for file in plain if file.name == "diffusion_pytorch_model.safetensors"]
    if faults and alone:
        return WeightFiles(tuple(alone))
    damage += faults
    return chosen


def _last_resort(folder: Path, files: list[Path], indexes: list[Path], damage: list[str]) -> tuple[Path, ...]:
    """Return the consolidated files, or those of the only variant."""
    consolidated = [file for file in files if _is_consolidated(file)]
    if consolidated:
        return tuple(consolidated)
    variants = _variants((*files, *indexes))
    if not variants:  # adapters beside an index of consolidated files that are not there, or that alone
        return _by_index(indexes[0], damage).files
    if len(variants) != 1:
        raise CheckpointError(
            f"'{folder}' holds only the variants {', '.join(variants)} of the weights",
            help=f"say which is meant, for example model.variant: {variants[0]}",
        )
    return _variant(folder, files, indexes, damage, variants[0]).files


def _variant(
    folder: Path, files: list[Path], indexes: list[Path], damage: list[str], variant: str
) -> WeightFiles:
    found = [file for file in files if _variant_of(file) == variant]
    own = [index for index in indexes if _variant_of(index) == variant]
    single = [file for file in found if _NUMBERED.match(file.name) is None]
    if single:
        return WeightFiles(tuple(single[:1]))
    if own:
        return _by_index(own[0], damage)
    if found:
        return WeightFiles(tuple(_shards(found, damage)))
    there = _variants(files)
    known = f"it has {', '.join(there)}" if there else "it has none"
    raise CheckpointError(
        f"'{folder}' has no variant '{variant}' of the weights, such as model.{variant}.safetensors; {known}",
        help="correct model.variant, or leave it out for the files without one",
    )


def _variants(files: Iterable[Path]) -> list[str]:
    return sorted({name for file in files if (name := _variant_of(file)) is not None})


def _variant_of(path: Path) -> str | None:
    """Return the variant in the name of a file or an index; None where it has none."""
    found = _VARIANT_FILE.match(path.name) or _VARIANT_INDEX.match(path.name)
    return next((part for part in found.groups() if part), None) if found else None


def _is_consolidated(path: Path) -> bool:
    return path.name.startswith("consolidated")


def _is_plain(file: Path) -> bool:
    return not (
        _variant_of(file) is not None or _is_consolidated(file) or file.name.startswith("adapter_model")
    )


def _shards(files: list[Path], damage: list[str]) -> list[Path]:
    """Return the numbered shards among `files`, none lacking, or else all of them.

    Raises:
        CheckpointError: when there are shards of several sets.
    """
    sets: dict[tuple[str, str, str], dict[int, Path]] = {}
    for file in files:
        found = _NUMBERED.match(file.name)
        if found:
            shards = sets.setdefault((found["stem"], found["total"], found["end"]), {})
            shards[int(found["number"])] = file
    if not sets:
        return files
    if len(sets) > 1:
        names = ", ".join(f"{stem}-*-of-{total}{end}" for stem, total, end in sorted(sets))
        raise CheckpointError(
            f"'{files[0].parent}' has shards of {len(sets)} sets and no index: {names}",
            help="move those that are not meant elsewhere, or write a *.safetensors.index.json",
        )
    (((stem, total, end), shards),) = sets.items()
    width = len(total)
    absent = (number for number in range(1, int(total) + 1) if number not in shards)
    damage += [
        f"{shown(f'{stem}-{number:0{width}}-of-{total}{end}')} is not there, and no index says what it holds"
        for number in islice(absent, _MOST_SHOWN)
    ]
    return [shards[number] for number in sorted(shards)]


_MOST_SHOWN = 100
"""Shards that are listed as absent: a file's name may say that it is one of any number."""
