"""DM7xx: several nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.cluster import node_rules, stage_rules

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*node_rules.RULES, *stage_rules.RULES)
