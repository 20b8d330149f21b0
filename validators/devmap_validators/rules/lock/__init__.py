"""DM5xx: the lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.lock import locks

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*locks.RULES,)
