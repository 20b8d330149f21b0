"""DM6xx: policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.policy import (
    dm601_unknown_policy,
    dm602_broken_policy,
    dm603_policy_violated,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm601_unknown_policy.RULE,
    dm602_broken_policy.RULE,
    dm603_policy_violated.RULE,
)
