"""Several models as one inventory, each below its name: what a config with `components` places together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from devmap.inventory.dtypes import run_dtype
from devmap.inventory.model import Inventory
from devmap.inventory.stored.checkpoint import Checkpoint
from devmap.inventory.stored.mapping import WeightMapping

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["joined"]


def joined(parts: Mapping[str, Inventory], dtypes: Mapping[str, str | None]) -> Inventory:
    """Return one inventory of several, in their order, with each name below that of its component.

    Tensors have the dtype that they run in, by `dtypes`, since each component may have one of its own.
    Classes of one name are kept whole in all components where one asks for it. Linear in modules plus
    tensors.
    """
    modules = {"": "Components"}
    tensors = {}
    ties: list[tuple[str, ...]] = []
    whole: set[str] = set()
    notes: list[str] = []
    for name, part in parts.items():
        modules |= {_below(name, path): kind for path, kind in part.modules.items()}
        for tensor in part.tensors.values():
            new = _below(name, tensor.name)
            runs_in = run_dtype(tensor.dtype, dtypes.get(name), kind=tensor.kind)
            tensors[new] = tensor._replace(name=new, dtype=runs_in)
        ties += [tuple(_below(name, each) for each in group) for group in part.ties]
        whole.update(part.no_split_module_classes)
        notes += [f"{name}: {note}" for note in part.notes]
    mapped = all(part.mapping is not None and part.checkpoint is not None for part in parts.values())
    return Inventory(
        modules,
        tensors,
        tuple(ties),
        tuple(sorted(whole)),
        checkpoint=_joined_files(parts) if mapped else None,
        mapping=_joined_mapping(parts) if mapped else None,
        notes=tuple(notes),
    )


def _below(name: str, path: str) -> str:
    return f"{name}.{path}" if path else name


def _joined_files(parts: Mapping[str, Inventory]) -> Checkpoint:
    held = {}
    files: list[Path] = []
    for name, part in parts.items():
        assert part.checkpoint is not None
        files += part.checkpoint.files
        for stored in part.checkpoint.tensors.values():
            new = _below(name, stored.name)
            held[new] = dataclasses.replace(stored, name=new)
    return Checkpoint(Path(), tuple(files), held, {})


def _joined_mapping(parts: Mapping[str, Inventory]) -> WeightMapping:
    pieces = {}
    unmapped: list[str] = []
    ignored: list[str] = []
    missing: list[str] = []
    mismatched = []
    for name, part in parts.items():
        own = part.mapping
        assert own is not None
        for tensor, made in own.pieces.items():
            pieces[_below(name, tensor)] = tuple(
                dataclasses.replace(piece, stored=_below(name, piece.stored)) for piece in made
            )
        unmapped += _all_below(name, own.unmapped)
        ignored += _all_below(name, own.ignored)
        missing += _all_below(name, own.missing)
        mismatched += [
            dataclasses.replace(
                each,
                name=_below(name, each.name),
                pieces=tuple(
                    dataclasses.replace(piece, stored=_below(name, piece.stored)) for piece in each.pieces
                ),
            )
            for each in own.mismatched
        ]
    return WeightMapping(pieces, tuple(unmapped), tuple(ignored), tuple(missing), tuple(mismatched))


def _all_below(name: str, paths: Iterable[str]) -> list[str]:
    return [_below(name, path) for path in paths]
