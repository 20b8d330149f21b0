"""DM3xx: devices and dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.devices import dtypes, machine, offered

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*dtypes.RULES, *machine.RULES, *offered.RULES)
