"""DM5xx: the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.lock import (
    dm501_stale_lock,
    dm502_edited_lock,
    dm503_foreign_lock,
    dm504_unreadable_lock,
    dm505_missing_lock,
    dm506_outdated_plan,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm501_stale_lock.RULE,
    dm502_edited_lock.RULE,
    dm503_foreign_lock.RULE,
    dm504_unreadable_lock.RULE,
    dm505_missing_lock.RULE,
    dm506_outdated_plan.RULE,
)
