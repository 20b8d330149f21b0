"""What a rule may look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from devmap.inventory.patterns import expand_keys

if TYPE_CHECKING:
    from pathlib import Path

    from devmap.config.document import Document
    from devmap.config.model.placement_config import MachineProfile
    from devmap.errors import DevmapError, InventoryError, LockError, ResolutionError
    from devmap.inventory.model import Inventory
    from devmap.inventory.patterns import Expansion
    from devmap.plan.lock import Lock
    from devmap.plan.model import Plan

__all__ = ["Context"]


@dataclass(frozen=True, eq=False)
class Context:
    """One config and everything known about it.

    What could not be had is None, and the reason stands beside it.

    Contexts compare by identity, so that rules can share what they derive from one.
    """

    document: Document
    profile: str | None = None
    """The profile that is laid over the config, where the checks of the config as it stands are followed by
    those of its profiles."""
    inventory: Inventory | None = None
    inventory_error: InventoryError | None = None
    plan: Plan | None = None
    plan_error: ResolutionError | None = None
    lock: Lock | None = None
    """The lock beside the config, if there is one."""
    lock_error: LockError | None = None
    machine: MachineProfile | None = None
    """The machine that the config names; never probed while checking."""
    machine_error: DevmapError | None = None
    allow_code: bool = False
    locked: bool = False
    """Whether a fresh lock is asked for (`--locked`)."""
    judges_lock: bool = True
    """Whether the lock beside the config is to be judged too; False where one is about to be written."""
    checkpoint_inventory: Inventory | None = None
    """What the checkpoint's headers say, where `inventory` comes from a manifest and the checkpoint is there
    too."""
    repository: Path | None = None
    """The folder of the repository that the config stands in, if it stands in one."""

    @cached_property
    def expansion(self) -> Expansion | None:
        """What the keys of the config's device map stand for; None without a config or an inventory."""
        config = self.document.config
        if config is None or self.inventory is None:
            return None
        return expand_keys(config.device_map, self.inventory.index)
