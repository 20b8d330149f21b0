"""A checkpoint matched with a live module.

Through transformers' own conversion tables where the module is one of its.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Any

from devmap.inventory.conversions.conversion import ConversionRules, NameConversion, convert, mapping_of
from devmap.inventory.live.other_libraries import rules_of_diffusers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.checkpoint import Checkpoint

__all__ = [
    "conversion_row",
    "conversions_of",
    "match_by_rules",
    "match_checkpoint",
    "rules_between",
    "rules_of",
]


def match_checkpoint(
    inventory: Inventory, checkpoint: Checkpoint, model: nn.Module | None = None
) -> Inventory:
    """Return the inventory with the checkpoint's files and, for each tensor, the stored pieces that make it.

    With a model of transformers or diffusers its own conversions are followed; any other takes names as
    they are, and a prefix that all of them lack or have too many of is repaired. What is unmapped, ignored,
    missing or of another shape stands in `mapping`.
    """
    return match_by_rules(inventory, checkpoint, rules_between(model, inventory, checkpoint))


def rules_between(model: nn.Module | None, inventory: Inventory, checkpoint: Checkpoint) -> ConversionRules:
    """Return how the model's library reads a checkpoint into it; for a model of none, what the names tell."""
    if model is not None and hasattr(model, "base_model_prefix"):
        return rules_of(model)
    if model is not None and hasattr(model, "_repeated_blocks"):
        return rules_of_diffusers(model)
    loaded = {name for name, tensor in inventory.tensors.items() if tensor.persistent}
    return _plain_rules(loaded, checkpoint)


def match_by_rules(inventory: Inventory, checkpoint: Checkpoint, rules: ConversionRules) -> Inventory:
    """Return the inventory with the checkpoint's files and the stored pieces, which these rules name."""
    tensors = inventory.tensors
    loaded = {name for name, tensor in tensors.items() if tensor.persistent}

    def shape_of(name: str) -> tuple[int, ...] | None:
        return tensors[name].shape if name in tensors else None

    converted = convert(
        checkpoint.tensors,
        rules,
        knows=loaded.__contains__,
        is_computed=lambda name: name in tensors and name not in loaded,
        shape_of=shape_of,
        figures=checkpoint.config,
    )
    mapping = mapping_of(
        converted, [name for name in tensors if name in loaded], owner=inventory.owner, shape_of=shape_of
    )
    return dataclasses.replace(
        inventory, checkpoint=checkpoint, mapping=mapping, notes=(*inventory.notes, *converted.notes)
    )


def rules_of(model: nn.Module) -> ConversionRules:
    """Return how transformers reads a checkpoint into this model."""
    ignored = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        ignored.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        ignored.add(r"(^|\.)position_ids$")
    return ConversionRules(
        conversions_of(model), str(getattr(model, "base_model_prefix", "") or ""), tuple(sorted(ignored))
    )


def conversions_of(model: nn.Module) -> tuple[NameConversion, ...]:
    """Transformers' conversions of a model as data; none where its version has no such table."""
    try:
        # An optional dependency.
        from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    except ImportError:
        return ()
    return tuple(
        NameConversion.from_row(conversion_row(transform), transform.scope_prefix)
        for transform in get_model_conversion_mapping(model)
    )


def conversion_row(transform: Any) -> dict[str, Any]:
    """Return one of transformers' conversions as plain data, without the path it is bound to."""
    row: dict[str, Any] = {"from": list(transform.source_patterns), "to": list(transform.target_patterns)}
    operations = [_operation(operation) for operation in getattr(transform, "operations", ())]
    if operations:
        row["do"] = operations
    if type(transform).__name__ == "GroupWeightRename":
        row["group"] = True
    if getattr(transform, "offset", 0):
        row["offset"] = transform.offset
    return row


_OPTIONS: dict[str, tuple[str, ...]] = {
    "Chunk": ("dim", "num_shards_attribute"),
    "Concatenate": ("dim",),
    "Conv3dToLinear": (),
    "ErnieFuseAndSplitTextVisionExperts": ("stack_dim", "concat_dim"),
    "Interleave": ("dim", "inverse"),
    "LinearToConv3d": ("in_channels", "kernel_size"),
    "MergeModulelist": ("dim",),
    "PermuteForRope": ("subconfig_key", "permute_layer_names", "inverse"),
    "Split": ("dim",),
    "SplitModulelist": ("dim",),
    "Transpose": ("dim0", "dim1", "check_dims"),
}
"""What is kept of each operation; one that is not here is kept by its name, and refused by it."""


def _operation(operation: object) -> list[Any]:
    name = type(operation).__name__
    options = [getattr(operation, option, None) for option in _OPTIONS.get(name, ())]
    while options and options[-1] in (None, False):
        options.pop()
    return [name, *(list(option) if isinstance(option, tuple) else option for option in options)]


def _plain_rules(loaded: set[str], checkpoint: Checkpoint) -> ConversionRules:
    """No rules, or the one prefix that brings the most stored names to the model's."""
    names: Mapping[str, object] = checkpoint.tensors
    best: tuple[str, str] = ("", "")
    hits = Counter({best: sum(name in loaded for name in names)})
    extra = {name.partition(".")[0] for name in names if "." in name}
    lacking = {name.partition(".")[0] for name in loaded if "." in name}
    for prefix in sorted(extra):
        hits["-", prefix] = sum(
            name.startswith(f"{prefix}.") and name[len(prefix) + 1 :] in loaded for name in names
        )
    for prefix in sorted(lacking):
        hits["+", prefix] = sum(f"{prefix}.{name}" in loaded for name in names)
    best = max(hits, key=lambda key: (hits[key], key == ("", "")))
    return ConversionRules(base_model_prefix=best[1])
