"""A safetensors checkpoint as its headers describe it. Placeholder signatures: filled in by the inventory reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Checkpoint", "StoredTensor"]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a safetensors file."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """torch's name of the dtype."""
    file: Path
    offset: int
    """Of its first byte from the start of the file, in bytes."""
    nbytes: int


@dataclass(frozen=True)
class Checkpoint:
    """The safetensors files of one model, as their headers describe them."""

    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]
    config: Mapping[str, object]
    """`config.json`, empty where there is none."""
