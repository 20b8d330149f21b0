"""How a model's tensors are stored, counted once for all configs that name it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.inventory.model import Inventory, TensorKind

__all__ = ["stored_dtypes"]


def stored_dtypes(inventory: Inventory) -> Mapping[tuple[str, TensorKind], int]:
    """Return how many tensors have each dtype and kind, in order of first use."""
    return inventory.once(
        "stored dtypes", lambda: Counter((tensor.dtype, tensor.kind) for tensor in inventory.tensors.values())
    )
