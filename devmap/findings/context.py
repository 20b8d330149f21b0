"""What a rule may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.config.document import Document
    from devmap.errors import InventoryError, ResolutionError
    from devmap.inventory.model import Inventory
    from devmap.plan.lock import Lock
    from devmap.plan.model import Plan

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """One config and everything known about it. What could not be had is None, and the reason stands beside it."""

    document: Document
    inventory: Inventory | None = None
    inventory_error: InventoryError | None = None
    plan: Plan | None = None
    plan_error: ResolutionError | None = None
    lock: Lock | None = None
    """The lock beside the config, if there is one."""
    lock_error: Exception | None = None
    allow_code: bool = False
    notes: tuple[str, ...] = field(default=())
