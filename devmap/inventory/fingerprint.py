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

    The same from a checkpoint's headers, from a manifest and from a module, whatever the platform.
    """
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values, separators=(",", ":")).encode())

    for path, class_name in inventory.modules.items():
        add("m", path, class_name)
    for tensor in inventory.tensors.values():
        add("t", tensor.name, tensor.shape, tensor.dtype, tensor.kind, tensor.persistent)
    for group in inventory.ties:
        add("=", group)
    add("whole", inventory.no_split_module_classes)
    return f"sha256:{digest.hexdigest()}"
