"""DM2xx: the config and its map against the model: its map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.map import (
    dm201_unmatched_key,
    dm202_uncovered_tensors,
    dm203_straddling_class,
    dm204_split_ties,
    dm205_shadowed_key,
    dm206_conflicting_keys,
    dm207_redundant_key,
    dm208_unknown_no_split_class,
    dm209_unmatched_constraint,
    dm210_contradicted_constraint,
    dm211_unmatched_trainable,
    dm212_training_key_without_training,
    dm213_tied_head_apart,
    dm223_profile_without_effect,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm201_unmatched_key.RULE,
    dm202_uncovered_tensors.RULE,
    dm203_straddling_class.RULE,
    dm204_split_ties.RULE,
    dm205_shadowed_key.RULE,
    dm206_conflicting_keys.RULE,
    dm207_redundant_key.RULE,
    dm208_unknown_no_split_class.RULE,
    dm209_unmatched_constraint.RULE,
    dm210_contradicted_constraint.RULE,
    dm211_unmatched_trainable.RULE,
    dm212_training_key_without_training.RULE,
    dm213_tied_head_apart.RULE,
    dm223_profile_without_effect.RULE,
)
