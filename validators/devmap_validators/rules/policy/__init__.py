"""DM6xx: policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.policy import policies

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*policies.RULES,)
