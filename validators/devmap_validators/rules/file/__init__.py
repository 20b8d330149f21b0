"""DM0xx: the file itself, and the files of the checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.file import stored_files
from devmap_validators.rules.file.reader_rules import READER_RULES

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*READER_RULES, *stored_files.RULES)
