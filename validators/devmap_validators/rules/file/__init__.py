"""DM0xx: the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap_validators.rules.file import (
    dm001_file_too_large,
    dm002_invalid_encoding,
    dm003_forbidden_character,
    dm004_invalid_yaml,
    dm005_tab_indentation,
    dm006_duplicate_key,
    dm007_explicit_tag,
    dm008_nested_too_deep,
    dm009_too_many_nodes,
    dm010_several_documents,
    dm011_empty_file,
    dm012_root_not_a_mapping,
    dm013_unknown_alias,
    dm014_key_not_text,
    dm015_yaml_directive,
    dm016_number_too_long,
    dm017_merge_without_mapping,
    dm018_leading_zero,
    dm020_wrong_manifest,
    dm021_damaged_checkpoint,
)

if TYPE_CHECKING:
    from devmap.findings.model import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    dm001_file_too_large.RULE,
    dm002_invalid_encoding.RULE,
    dm003_forbidden_character.RULE,
    dm004_invalid_yaml.RULE,
    dm005_tab_indentation.RULE,
    dm006_duplicate_key.RULE,
    dm007_explicit_tag.RULE,
    dm008_nested_too_deep.RULE,
    dm009_too_many_nodes.RULE,
    dm010_several_documents.RULE,
    dm011_empty_file.RULE,
    dm012_root_not_a_mapping.RULE,
    dm013_unknown_alias.RULE,
    dm014_key_not_text.RULE,
    dm015_yaml_directive.RULE,
    dm016_number_too_long.RULE,
    dm017_merge_without_mapping.RULE,
    dm018_leading_zero.RULE,
    dm020_wrong_manifest.RULE,
    dm021_damaged_checkpoint.RULE,
)
