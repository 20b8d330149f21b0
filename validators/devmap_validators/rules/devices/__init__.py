"""DM3xx: devices and dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.devices import (
    dm301_device_without_budget,
    dm302_device_not_in_machine,
    dm303_mixed_backends,
    dm304_tier_not_offered,
    dm305_upcast,
    dm306_integer_dtype,
    dm307_percent_without_machine,
    dm308_device_gap,
    dm309_no_accelerator,
    dm310_unknown_machine,
    dm311_unused_accelerators,
    dm312_headroom_without_device,
    dm313_narrower_range,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm301_device_without_budget.RULE,
    dm302_device_not_in_machine.RULE,
    dm303_mixed_backends.RULE,
    dm304_tier_not_offered.RULE,
    dm305_upcast.RULE,
    dm306_integer_dtype.RULE,
    dm307_percent_without_machine.RULE,
    dm308_device_gap.RULE,
    dm309_no_accelerator.RULE,
    dm310_unknown_machine.RULE,
    dm311_unused_accelerators.RULE,
    dm312_headroom_without_device.RULE,
    dm313_narrower_range.RULE,
)
