"""DM2xx: the model that a config means: its checkpoint, its manifest, its factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.model import (
    dm214_no_model_source,
    dm215_sources_disagree,
    dm216_unreadable_checkpoint,
    dm217_unreadable_manifest,
    dm218_path_outside_repository,
    dm219_factory_needs_code,
    dm220_unmapped_tensors,
    dm221_missing_tensors,
    dm222_incomplete_inventory,
    dm224_misshapen_tensors,
    dm225_unknown_quantization,
    dm226_dtype_of_quantized,
    dm227_parted_weight,
    dm228_unloadable_quantization,
    dm229_impossible_quantization,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm214_no_model_source.RULE,
    dm215_sources_disagree.RULE,
    dm216_unreadable_checkpoint.RULE,
    dm217_unreadable_manifest.RULE,
    dm218_path_outside_repository.RULE,
    dm219_factory_needs_code.RULE,
    dm220_unmapped_tensors.RULE,
    dm221_missing_tensors.RULE,
    dm222_incomplete_inventory.RULE,
    dm224_misshapen_tensors.RULE,
    dm225_unknown_quantization.RULE,
    dm226_dtype_of_quantized.RULE,
    dm227_parted_weight.RULE,
    dm228_unloadable_quantization.RULE,
    dm229_impossible_quantization.RULE,
)
