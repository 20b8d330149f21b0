"""What is known of one open config: what hovers and proposals are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.config.document import Document
    from devmap.config.model.placement_config import PlacementConfig
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["Known"]


@dataclass(frozen=True)
class Known:
    """A config as far as it could be read and planned."""

    document: Document
    config: PlacementConfig | None = None
    inventory: Inventory | None = None
    plan: Plan | None = None
    problem: str = ""
    """Why there is no inventory, or no plan."""
