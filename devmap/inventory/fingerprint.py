"""A short name for what a model is, equal for equal inventories."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

__all__ = ["fingerprint"]


def fingerprint(inventory: Inventory) -> str:
    """`sha256:` and the digest of modules, tensors, ties and no-split classes in order.

    The same from a checkpoint's headers, from a manifest and from a module, whatever the platform. What is
    digested are lists of words, each with its length, so that no name can be taken for two.
    """
    return inventory.once("fingerprint", lambda: _digest(inventory))


def _digest(inventory: Inventory) -> str:
    signatures, signature_of = inventory.signatures
    described = [json.dumps(look) for look in signatures]
    words: list[list[str]] = [
        list(inventory.modules),
        list(inventory.modules.values()),
        list(inventory.tensors),
        [described[number] for number in signature_of],
        *(list(group) for group in inventory.ties),
        list(inventory.no_split_module_classes),
    ]
    digest = hashlib.sha256()
    for each in words:
        digest.update(_text(each).encode("utf-8", "surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def _text(words: list[str]) -> str:
    """Return one word a line after a line with their number; a JSON list where a word has several lines.

    A tenth of the time that JSON takes.
    """
    text = "\n".join(words)
    return (
        f"{len(words)}\n{text}\n" if text.count("\n") == max(len(words) - 1, 0) else f"{json.dumps(words)}\n"
    )
