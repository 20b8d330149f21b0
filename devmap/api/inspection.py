"""A checkpoint or manifest looked at."""

from __future__ import annotations

import os
from pathlib import Path

from devmap.config.atomic_files import write_named
from devmap.config.regular_files import expand_user
from devmap.inventory.manifests.manifest_text import render_manifest
from devmap.inventory.model import Inventory
from devmap.inventory.reader import read_checkpoint
from devmap.inventory.stored.hub import find_checkpoint

__all__ = ["inspect", "write_manifest"]


def inspect(
    source: str | os.PathLike[str], *, through_transformers: bool = False, dequantize: bool = False
) -> Inventory:
    """Return the inventory of a checkpoint or of a manifest file.

    A checkpoint is a folder, a file, an index or a hub id in the local cache.

    Where the headers do not settle the model, Transformers is asked if it is installed; it always is with
    `through_transformers`.

    With `dequantize` quantised weights are described whole, as a config with `model.dequantize` loads them.

    Raises:
        InventoryError: when it is absent or damaged.
    """
    path = expand_user(os.fspath(source))
    if path.name.endswith((".manifest.yaml", ".manifest.yml")):
        return Inventory.from_manifest(path)
    return read_checkpoint(
        find_checkpoint(str(source), folder=Path()),
        through_transformers="always" if through_transformers else "where needed",
        dequantize=dequantize,
    )


def write_manifest(inventory: Inventory, path: Path) -> int:
    """Write the manifest of an inventory, whole or not at all, and return its size in bytes.

    Raises:
        UsageError: when it cannot be written.
    """
    content = render_manifest(inventory).encode()
    write_named(path, content)
    return len(content)
