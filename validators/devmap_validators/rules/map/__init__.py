"""DM2xx: the config and its map against the model: its map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.map import constraints, coverage, keys, ties

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*constraints.RULES, *coverage.RULES, *keys.RULES, *ties.RULES)
