"""Inventories that took a library to make, kept on this machine for the next time.

The key is what they were made from: `config.json`, the names, shapes and dtypes in the headers, and the
library's version. An entry is written whole or not at all; one that cannot be read is as none.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devmap.config.atomic_files import write_atomically
from devmap.errors import InventoryError
from devmap.inventory.conversions.conversion import ConversionRules, NameConversion
from devmap.inventory.live.live_match import match_by_rules
from devmap.inventory.manifests.manifest import parse_manifest
from devmap.inventory.manifests.manifest_text import render_manifest

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.checkpoint import Checkpoint

__all__ = ["cache_folder", "keep", "kept"]

_FORMAT = 1


def cache_folder() -> Path:
    """Return where entries stand: `DEVMAP_CACHE`, else `devmap` in the user's cache folder."""
    own = os.environ.get("DEVMAP_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "devmap"


def kept(checkpoint: Checkpoint) -> Inventory | None:
    """Return the inventory that was kept for a checkpoint, matched with its files.

    None where there is none.
    """
    path = _path(checkpoint)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        inventory = parse_manifest(entry["manifest"].encode(), path.name)
        rules = ConversionRules(
            tuple(NameConversion.from_row(row, row.get("scope")) for row in entry["conversions"]),
            entry["prefix"],
            tuple(entry["ignored"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InventoryError):
        return None
    return match_by_rules(inventory, checkpoint, rules)


def keep(inventory: Inventory, rules: ConversionRules, checkpoint: Checkpoint) -> None:
    """Keep what a library made of a checkpoint.

    A folder that cannot be written is no fault: it is made again.
    """
    entry = {
        "manifest": render_manifest(inventory),
        "conversions": [_row(rule) for rule in rules.conversions],
        "prefix": rules.base_model_prefix,
        "ignored": list(rules.ignored),
    }
    path = _path(checkpoint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(entry).encode())
    except OSError:
        return


def _path(checkpoint: Checkpoint) -> Path:
    return cache_folder() / "inventories" / f"{_key(checkpoint)}.json"


def _key(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    words: list[Any] = [_FORMAT, _version(), checkpoint.config]
    digest.update(json.dumps(words, sort_keys=True, default=str).encode())
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{json.dumps(name)} {tensor.shape} {tensor.dtype}\n".encode())
    return digest.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        return ""


def _row(rule: NameConversion) -> dict[str, Any]:
    return {
        "from": list(rule.sources),
        "to": list(rule.targets),
        "do": [[name, *options] for name, options in rule.operations],
        "scope": rule.scope,
        "group": rule.is_group,
        "offset": rule.offset,
    }
