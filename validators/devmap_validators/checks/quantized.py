"""How the model of a config is quantised, as far as its inventory says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory

__all__ = ["label_of", "method_of"]


def method_of(inventory: Inventory) -> str | None:
    """Return Transformers' word for the method, such as `gptq`; None where no packed weight is left."""
    return _figure(inventory, "quantization_method")


def label_of(inventory: Inventory) -> str:
    """Return the method for people: `4-bit GPTQ, groups of 128`."""
    return _figure(inventory, "quantization") or "an unknown method"


def _figure(inventory: Inventory, key: str) -> str | None:
    architecture = inventory.architecture
    found = architecture.figures.get(key) if architecture is not None else None
    return found if isinstance(found, str) else None
