"""DM1xx: the config's values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.config.reader_rules import READER_RULES

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = READER_RULES
