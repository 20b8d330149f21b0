"""A config resolved to a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.api.gate import refuse_errors
from devmap.api.machine import machine_of
from devmap.api.sources import inventory_of
from devmap.config.document import read_config
from devmap.planning.resolve import resolve as plan_for
from devmap.planning.savings import savings

if TYPE_CHECKING:
    import os

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.overrides import Overrides
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.planning.savings import Saving

__all__ = ["ResolvedFile", "resolve", "resolve_file", "resolved_file"]


def resolve(
    config: PlacementConfig,
    inventory: Inventory | None = None,
    *,
    machine: MachineProfile | None = None,
    allow_code: bool = False,
) -> Plan:
    """Resolve a config to the concrete plan: where each module and tensor lives and runs, proven to fit.

    Every size in the plan is in bytes, every time in seconds; `plan.device_map` is a dict as Accelerate and
    transformers take it.

    `inventory` defaults to what the config's `model` says, `machine` to the one that the config names. Where
    it names none and gives no `max_memory`, the devices of this machine are measured, which imports torch.

    Raises:
        ResolutionError: no plan fits; holds the shortfall in bytes and changes that fit.
        DeviceMapError: a manual map is wrong; lists every problem.
        InventoryError: the model cannot be described.
    """
    if inventory is None:
        inventory = inventory_of(config, allow_code=allow_code)
    return plan_for(config, inventory, machine=machine or machine_of(config, probe=True))


def resolve_file(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
) -> tuple[Plan, Inventory]:
    """Return the plan of a config file, and the inventory it is for.

    Raises:
        ConfigError: the file is wrong, or `devmap validate` finds an error in it; lists every one. Otherwise
            as `resolve`.
    """
    found = resolved_file(path, profile=profile, overrides=overrides, allow_code=allow_code)
    return found.plan, found.inventory


@dataclass(frozen=True)
class ResolvedFile:
    """The plan of a config file, with what it was made from."""

    config: PlacementConfig
    plan: Plan
    inventory: Inventory
    machine: MachineProfile | None

    @property
    def savings(self) -> tuple[Saving, ...]:
        """What quantising while loading would change about a plan that streams; each way is planned with."""
        return savings(self.config, self.inventory, self.plan, machine=self.machine)


def resolved_file(
    path: str | os.PathLike[str],
    *,
    profile: str | None = None,
    overrides: Overrides = (),
    allow_code: bool = False,
) -> ResolvedFile:
    """Resolve a config file as `resolve_file` does, and keep what the plan was made from.

    Raises:
        ConfigError: as `resolve_file`.
    """
    config = read_config(path, profile, overrides=overrides)
    inventory = inventory_of(config, allow_code=allow_code)
    machine = machine_of(config, probe=True)
    plan = plan_for(config, inventory, machine=machine)
    refuse_errors(path, plan, inventory, profile=profile, overrides=overrides, allow_code=allow_code)
    return ResolvedFile(config, plan, inventory, machine)
