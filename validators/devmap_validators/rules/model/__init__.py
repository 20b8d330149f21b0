"""DM2xx: the model that a config means: its checkpoint, its manifest, its factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.model import quantized, sources, tensors

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (*quantized.RULES, *sources.RULES, *tensors.RULES)
