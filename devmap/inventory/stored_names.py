"""Names as a checkpoint stores them, which many models change on the way to the running module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

__all__ = ["runtime_path"]

_LITERAL = re.compile(r"[^\[*?{]*")


def runtime_path(inventory: Inventory, key: str) -> str | None:
    """Return the running model's path for a key that is written in stored names; None where it is not.

    What follows a range or a glob in the key is kept: `language_model.model.layers[0-3]` becomes
    `model.language_model.layers[0-3]` in a LLaVA. Linear in the number of tensors.
    """
    if inventory.mapping is None:
        return None
    literal = _LITERAL.match(key)
    head = literal[0].rstrip(".") if literal is not None else key
    if not head:
        return None
    for name, pieces in inventory.mapping.pieces.items():
        for piece in pieces[:1]:
            if piece.stored != head and not piece.stored.startswith(f"{head}."):
                continue
            rest = piece.stored[len(head) :]
            found = name.removesuffix(rest) if rest else name
            if name.endswith(rest) and found != head and (found in inventory.modules or found == name):
                return found + key[len(head) :] if found else None
    return None
