"""A short name for what a model is, equal for equal inventories."""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

__all__ = ["fingerprint"]

_LOOK = attrgetter("shape", "dtype", "kind", "persistent")


def fingerprint(inventory: Inventory) -> str:
    """`sha256:` and the digest of modules, tensors, ties and no-split classes in order.

    The same from a checkpoint's headers, from a manifest and from a module, whatever the platform. What is digested are lists of
    words, each with its length, so that no name can be taken for two.
    """
    looks: dict[object, str] = {}
    tensors = inventory.tensors.values()
    words: list[list[str]] = [
        list(inventory.modules),
        list(inventory.modules.values()),
        list(inventory.tensors),
        [looks.get(look) or looks.setdefault(look, json.dumps(look)) for look in map(_LOOK, tensors)],
        *(list(group) for group in inventory.ties),
        list(inventory.no_split_module_classes),
    ]
    digest = hashlib.sha256()
    for each in words:
        digest.update(_text(each).encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def _text(words: list[str]) -> str:
    """One word a line after a line with their number; a JSON list where a word has several lines. A tenth of the time that JSON takes."""
    text = "\n".join(words)
    return f"{len(words)}\n{text}\n" if text.count("\n") == max(len(words) - 1, 0) else f"{json.dumps(words)}\n"
