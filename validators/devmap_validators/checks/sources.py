"""What the models of a config are: where their sources stand, how they are stored and quantised."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.config.model.placement_config import ModelSource, PlacementConfig
    from devmap.config.yaml.faults import DocumentPath
    from devmap.errors import InventoryError
    from devmap.inventory.model import Inventory, TensorKind

__all__ = ["label_of", "method_of", "place_of", "placed_sources", "stored_dtypes"]


def placed_sources(config: PlacementConfig) -> Iterator[tuple[DocumentPath, ModelSource]]:
    """Yield each source of a model with its path in the document."""
    if not config.components:
        yield ("model",), config.model
    for name, source in config.components.items():
        yield ("components", name), source


def place_of(error: InventoryError) -> DocumentPath:
    """Return the path of the source that an error is about."""
    return ("components", error.component) if error.component else ("model",)


def stored_dtypes(inventory: Inventory) -> Mapping[tuple[str, TensorKind], int]:
    """Return how many tensors have each dtype and kind, in order of first use."""
    return inventory.once(
        "stored dtypes", lambda: Counter((tensor.dtype, tensor.kind) for tensor in inventory.tensors.values())
    )


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
