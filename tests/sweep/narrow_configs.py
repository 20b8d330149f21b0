"""A second way to shrink a config: whatever has the name of a size or a width is capped, whatever it counts.

Tried where `tests.sweep.tiny_configs` gives a config that its class refuses.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["narrow_config"]

VOCABULARY = 160

_SIZE = re.compile(
    r"(hidden_size|d_model|n_embd|embed_dim|embedding_size|embedding_dim|_dim$|^dim$|width|channels|hidden_dim"
    r"|_size$|d_ff|d_inner|ffn|n_inner|_features|_rank$|hidden_sizes|_dims$|conv_dim|attention_size"
    r"|encoder_hidden|hidden$)"
)
_WIDE = re.compile(r"(intermediate|ffn|d_ff|inner|mlp|feedforward|feed_forward)")
_KEPT = re.compile(
    r"(patch_size|kernel|stride|window|chunk|num_channels|in_channels|n_channels|image_size|vocab|_bins|state_size"
    r"|d_state|conv_size|batch|group_size|input_size|sample|temporal_patch|merge|pool_size|block_size|crop"
    r"|feat_extract|num_conv_pos|type_vocab|max_|_length|codebook_size|tubelet|layer_norm|beam|spatial_shapes)"
)
_LAYERS = re.compile(
    r"(^n_layers?$|num_.*layers$|_layers$|^depths?$|num_blocks$|num_hidden_layers|layers_count)"
)
_HEADS = re.compile(r"(heads?$|_heads_|num_attention_heads|n_head)")
_HEAD_DIM = re.compile(
    r"(head_dim|d_kv|kv_channels|head_size|attention_head_dim|qk_.*dim|v_head_dim|^key_length)"
)


def narrow_config(config_class: Any) -> Any:
    """A config of this class, small wherever a name says what its figure is."""
    return config_class.from_dict(_shrunk(config_class().to_dict(), 1, 2))


def _shrunk(figures: dict[str, Any], scale: int, layers: int, inside: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    count = 4 if any(key.endswith("layer_types") and figures[key] for key in figures) else layers
    ids = iter(range(10, VOCABULARY))
    for key, value in figures.items():
        if key.startswith("_") or key in {"id2label", "label2id", "dtype", "quantization_config"}:
            if key in {"id2label", "label2id"}:
                found[key] = value
            continue
        found[key] = _value(key, value, figures, scale, count, ids, inside)
    return _consistent(found)


_RECOMPUTED = ("out_features", "out_indices", "stage_names", "per_layer_config", "d_head")
"""Figures that a configuration works out from others when they are absent, and that no longer fit them."""


def _consistent(figures: dict[str, Any]) -> dict[str, Any]:
    """Repair figures that hang together: head sizes, heads of state-space layers, lengths of time series."""
    for key in _RECOMPUTED:
        figures.pop(key, None)
    hidden, heads = figures.get("hidden_size"), figures.get("num_attention_heads")
    if isinstance(hidden, int) and isinstance(heads, int) and heads:
        if figures.get("head_dim", 0) is None:
            figures["head_dim"] = hidden // heads
        if figures.get("num_key_value_heads", 0) is None:
            figures["num_key_value_heads"] = heads
    if isinstance(hidden, int):
        for count, size, expand in (
            ("mamba_n_heads", "mamba_d_head", "mamba_expand"),
            ("num_heads", "head_dim", "expand"),
        ):
            if count in figures and expand in figures:
                width = figures[size] if isinstance(figures.get(size), int) else 16
                figures[size] = width
                figures[count] = int(figures[expand] * hidden) // width
        if "mamba_d_ssm" in figures and isinstance(figures.get("mamba_d_head"), int):
            figures["mamba_d_ssm"] = figures["mamba_n_heads"] * figures["mamba_d_head"]
    if figures.get("prediction_length", 0) is None:
        figures["prediction_length"] = 8
    return figures


def _value(
    key: str, value: Any, figures: dict[str, Any], scale: int, layers: int, ids: Iterator[int], inside: str
) -> Any:
    if isinstance(value, dict):
        return _shrunk(value, scale, max(2, layers), key) if value else value
    if isinstance(value, bool) or value is None or isinstance(value, (str, float)):
        return copy.deepcopy(value)
    if isinstance(value, (list, tuple)):
        if key.endswith(("layer_types", "layers_block_type")) or (
            value and isinstance(value[0], str) and len(value) > layers and "layer" in key
        ):
            return _sampled(list(value), layers)
        original = figures.get("num_hidden_layers", figures.get("num_layers"))
        if isinstance(original, int) and len(value) == original > layers:
            value = value[:layers]  # one figure a layer
        return [_value(key, each, figures, scale, layers, ids, inside) for each in value]
    if not isinstance(value, int):
        return value
    return _integer(key, value, figures, scale, layers, ids)


def _sampled(kinds: list[Any], count: int) -> list[Any]:
    """`count` layers in which each kind comes at least once, where there is room for all."""
    if len(kinds) <= count:
        return kinds
    head = kinds[:count]
    for kind in dict.fromkeys(kinds):
        if kind not in head:
            head[-1 - len([each for each in head if each not in kinds[:count]])] = kind
    return head


def _integer(
    key: str, value: int, figures: dict[str, Any], scale: int, layers: int, ids: Iterator[int]
) -> int:
    """The small figure by the first rule whose expression the key's name matches; itself where none does."""
    name = key.lower()
    if name.endswith("image_size"):
        return _image_edge(value, figures.get("patch_size", 16))
    if _IDS.search(name):
        return value if 0 <= value < 8 else next(ids)
    for pattern, exception, largest in _CAPS:
        if pattern.search(name) and not (exception and exception.search(name)):
            return largest(value)
    if _LAYERS.search(name) and not _LAYER_WORDS.search(name):
        return min(value, layers)
    if not _KEPT.search(name) and _SIZE.search(name) and value > 64 * scale:
        return (128 if _WIDE.search(name) else 64) * scale
    return value


def _image_edge(value: int, patch: object) -> int:
    edge = patch[0] if isinstance(patch, list | tuple) and patch else patch
    return min(value, 4 * edge) if isinstance(edge, int) and edge < 64 else value


def _power_of_two(value: int) -> int:
    return 1 << (min(value, 4).bit_length() - 1) if value > 0 else value


_IDS = re.compile(r"(token_id|token_index|_token_ids|token_idx)$")
_LAYER_WORDS = re.compile(r"(first|skip|interval|period|every|dense|feat_extract)")
_CAPS: tuple[tuple[re.Pattern[str], re.Pattern[str] | None, Callable[[int], int]], ...] = (
    (re.compile(r"vocab"), None, lambda value: min(value, VOCABULARY)),
    (
        re.compile(r"(experts_per_tok|top_k|topk$|moe_topk|expert_top|num_experts_per)"),
        None,
        lambda value: min(value, 2),
    ),
    (re.compile(r"(n_group|topk_group|num_expert_group)$"), None, lambda _: 1),
    (re.compile(r"(num|n_).*expert|expert.*(num|n_)"), _SIZE, lambda value: min(value, 4)),
    (re.compile(_HEAD_DIM.pattern), re.compile("rope"), lambda value: min(value, 16)),
    (_HEAD_DIM, None, lambda value: min(value, 8)),
    (re.compile(rf"(key_value|kv).*{_HEADS.pattern}"), None, lambda value: min(value, 2)),
    (_HEADS, None, _power_of_two),
    (
        re.compile(r"(max_position|n_positions|max_target|max_seq|seq_length)"),
        re.compile("source"),
        lambda value: min(value, 512),
    ),
)
"""Name of a figure, exception, and what becomes of the figure; the first that matches counts."""
