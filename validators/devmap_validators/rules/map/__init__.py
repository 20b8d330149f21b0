"""DM2xx: the config and its map against the model."""

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
    dm214_no_model_source,
    dm215_sources_disagree,
    dm216_unreadable_checkpoint,
    dm217_unreadable_manifest,
    dm218_path_outside_repository,
    dm219_factory_needs_code,
    dm220_unmapped_tensors,
    dm221_missing_tensors,
    dm222_incomplete_inventory,
    dm223_profile_without_effect,
    dm224_misshapen_tensors,
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
    dm214_no_model_source.RULE,
    dm215_sources_disagree.RULE,
    dm216_unreadable_checkpoint.RULE,
    dm217_unreadable_manifest.RULE,
    dm218_path_outside_repository.RULE,
    dm219_factory_needs_code.RULE,
    dm220_unmapped_tensors.RULE,
    dm221_missing_tensors.RULE,
    dm222_incomplete_inventory.RULE,
    dm223_profile_without_effect.RULE,
    dm224_misshapen_tensors.RULE,
)
