"""A checkpoint matched with a live module, through transformers' own conversion tables where the module is one of its."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from devmap.inventory.conversion import Conversion, Rules, convert, mapping_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from devmap.inventory.checkpoint import Checkpoint
    from devmap.inventory.model import Inventory

__all__ = ["conversions_of", "match_checkpoint", "rules_of"]


def match_checkpoint(
    inventory: Inventory, checkpoint: Checkpoint, model: nn.Module | None = None
) -> Inventory:
    """The inventory with the checkpoint's files and, for each tensor, the stored pieces that make it.

    With a transformers model its own conversions are followed; any other takes names as they are, and a
    prefix that all of them lack or have too many of is repaired. What is unmapped, ignored, missing or of
    another shape stands in `mapping`.
    """
    loaded = {name for name, tensor in inventory.tensors.items() if tensor.persistent}
    rules = (
        rules_of(model)
        if model is not None and hasattr(model, "base_model_prefix")
        else _plain_rules(loaded, checkpoint)
    )
    tensors = inventory.tensors

    def shape_of(name: str) -> tuple[int, ...] | None:
        return tensors[name].shape if name in tensors else None

    converted = convert(
        checkpoint.tensors,
        rules,
        knows=loaded.__contains__,
        is_computed=lambda name: name in tensors and name not in loaded,
        shape_of=shape_of,
    )
    mapping = mapping_of(
        converted, [name for name in tensors if name in loaded], owner=inventory.owner, shape_of=shape_of
    )
    return dataclasses.replace(
        inventory, checkpoint=checkpoint, mapping=mapping, notes=(*inventory.notes, *converted.notes)
    )


def rules_of(model: nn.Module) -> Rules:
    """How transformers reads a checkpoint into this model."""
    ignored = set(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())
    buffers = [name for name, _ in model.named_buffers()]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        ignored.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in buffers):
        ignored.add(r"(^|\.)position_ids$")
    return Rules(
        conversions_of(model), str(getattr(model, "base_model_prefix", "") or ""), tuple(sorted(ignored))
    )


def conversions_of(model: nn.Module) -> tuple[Conversion, ...]:
    """Transformers' conversions of a model as data; none where its version has no such table."""
    try:
        # An optional dependency.
        from transformers.conversion_mapping import get_model_conversion_mapping  # noqa: PLC0415
    except ImportError:
        return ()
    return tuple(
        Conversion(
            tuple(transform.source_patterns),
            tuple(transform.target_patterns),
            tuple(_operation(operation) for operation in getattr(transform, "operations", ())),
            transform.scope_prefix,
        )
        for transform in get_model_conversion_mapping(model)
    )


def _operation(operation: object) -> tuple[str, tuple[int, ...]]:
    name = type(operation).__name__
    if name == "Transpose":
        dims: tuple[object, ...] = (getattr(operation, "dim0", None), getattr(operation, "dim1", None))
        unclear = getattr(operation, "check_dims", False)
    else:
        dims = (getattr(operation, "dim", None),)
        unclear = getattr(operation, "num_shards_attribute", None) is not None and name == "Chunk"
    known = tuple(dim for dim in dims if isinstance(dim, int))
    return (f"{name} by config" if unclear else name, known)


def _plain_rules(loaded: set[str], checkpoint: Checkpoint) -> Rules:
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
    return Rules(base_model_prefix=best[1])
