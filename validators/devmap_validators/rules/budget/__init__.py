"""DM4xx: budgets and whether the model fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.budget import (
    dm401_infeasible,
    dm402_over_budget_map,
    dm403_stream_without_slots,
    dm404_budget_near_capacity,
    dm405_zero_budget,
    dm406_headroom_takes_all,
    dm407_everything_on_disk,
    dm408_needless_spill,
    dm409_host_memory_too_small,
    dm410_budget_above_capacity,
    dm411_empty_accelerator,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm401_infeasible.RULE,
    dm402_over_budget_map.RULE,
    dm403_stream_without_slots.RULE,
    dm404_budget_near_capacity.RULE,
    dm405_zero_budget.RULE,
    dm406_headroom_takes_all.RULE,
    dm407_everything_on_disk.RULE,
    dm408_needless_spill.RULE,
    dm409_host_memory_too_small.RULE,
    dm410_budget_above_capacity.RULE,
    dm411_empty_accelerator.RULE,
)
