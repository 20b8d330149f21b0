"""Where the sources of models stand in a config: under `model`, or one under each name of `components`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.model.placement_config import ModelSource, PlacementConfig
    from devmap.config.yaml.faults import DocumentPath
    from devmap.errors import InventoryError

__all__ = ["place_of", "placed_sources"]


def placed_sources(config: PlacementConfig) -> Iterator[tuple[DocumentPath, ModelSource]]:
    """Yield each source of a model with its path in the document."""
    if not config.components:
        yield ("model",), config.model
    for name, source in config.components.items():
        yield ("components", name), source


def place_of(error: InventoryError) -> DocumentPath:
    """Return the path of the source that an error is about."""
    return ("components", error.component) if error.component else ("model",)
