"""DM4xx: budgets and whether the model fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.budget import amounts, fit, streaming

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*amounts.RULES, *fit.RULES, *streaming.RULES)
