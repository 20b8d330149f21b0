"""DM1xx: the config's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.config import (
    dm101_unknown_key,
    dm102_missing_key,
    dm103_wrong_type,
    dm104_invalid_size,
    dm105_invalid_device,
    dm106_unknown_choice,
    dm107_value_out_of_range,
    dm108_invalid_map_key,
    dm109_unsupported_version,
    dm110_colliding_devices,
    dm111_unknown_profile,
    dm112_unreadable_parent,
    dm113_circular_extends,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm101_unknown_key.RULE,
    dm102_missing_key.RULE,
    dm103_wrong_type.RULE,
    dm104_invalid_size.RULE,
    dm105_invalid_device.RULE,
    dm106_unknown_choice.RULE,
    dm107_value_out_of_range.RULE,
    dm108_invalid_map_key.RULE,
    dm109_unsupported_version.RULE,
    dm110_colliding_devices.RULE,
    dm111_unknown_profile.RULE,
    dm112_unreadable_parent.RULE,
    dm113_circular_extends.RULE,
)
