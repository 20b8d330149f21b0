"""All rules of the built-in pack, in order of their codes.

A new rule stands in the module of its family that is about the same thing, and in its `RULES`; one that only
passes on a fault of the reader is a row of `reader_rules`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules import budget, cluster, config, devices, file, lock, model, policy
from devmap_validators.rules import map as map_rules

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["ALL_RULES"]

_FAMILIES = (file, config, map_rules, model, devices, budget, lock, policy, cluster)

ALL_RULES: tuple[Rule, ...] = tuple(
    sorted((rule for family in _FAMILIES for rule in family.RULES), key=lambda rule: rule.code)
)
