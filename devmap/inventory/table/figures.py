"""The figures of a config that planning uses: sizes of layers, heads, caches and experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devmap.errors import InventoryError
from devmap.inventory.model import Architecture
from devmap.inventory.quantization import quantization_of
from devmap.inventory.table.expression import evaluate
from devmap.inventory.table.libraries import library_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FIGURES", "architecture_of", "completed"]

FIGURES = (
    "hidden_size",
    "d_model",
    "n_embd",
    "word_embed_proj_dim",
    "intermediate_size",
    "ffn_dim",
    "ffn_hidden_size",
    "d_ff",
    "n_inner",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "num_attention_heads",
    "num_heads",
    "n_head",
    "n_heads",
    "attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_key_value_heads",
    "num_kv_heads",
    "multi_query",
    "new_decoder_architecture",
    "alibi",
    "head_dim",
    "d_kv",
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "v_head_dim",
    "vocab_size",
    "max_position_embeddings",
    "n_positions",
    "max_source_positions",
    "max_target_positions",
    "num_mel_bins",
    "sliding_window",
    "use_sliding_window",
    "attention_chunk_size",
    "layer_types",
    "num_kv_shared_layers",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "linear_key_head_dim",
    "linear_value_head_dim",
    "linear_conv_kernel_dim",
    "mamba_n_heads",
    "mamba_d_head",
    "mamba_d_ssm",
    "mamba_n_groups",
    "mamba_d_state",
    "mamba_d_conv",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "first_k_dense_replace",
    "decoder_sparse_step",
    "mlp_only_layers",
    "is_encoder_decoder",
    "tie_word_embeddings",
)
"""Keys of config.json that an architecture keeps, under config.json's own names; documented in
docs/inventory.md."""

_NESTED = ("text_config", "llm_config", "language_config")


def architecture_of(config: Mapping[str, object], class_name: str) -> Architecture:
    """Return what planning needs of a full config; a nested text config is flattened over the outer one.

    Nulls are left out. A config of diffusers or timm gives none: its words mean other things, and nothing in
    it has a KV cache.
    """
    if library_of(config) != "transformers":
        return Architecture("", class_name, {})
    figures: dict[str, int | float | str | bool | list[int | str] | None] = {}
    layers: list[Mapping[str, object]] = [config]
    layers += [nested for key in _NESTED if isinstance(nested := config.get(key), dict)]
    for key in FIGURES:
        for layer in reversed(layers):
            value = layer.get(key)
            if isinstance(value, int | float | str | bool):
                figures[key] = value
                break
            if isinstance(value, list) and all(isinstance(item, int | str) for item in value):
                figures[key] = value
                break
    quantization = quantization_of(config)
    if quantization is not None:
        figures["quantization"] = quantization.label
        figures["quantization_method"] = quantization.method
    return Architecture(str(config.get("model_type") or ""), class_name, figures)


def completed(
    config: Mapping[str, object],
    section: Mapping[str, Any],
    section_of: Callable[[str], Mapping[str, Any] | None],
) -> dict[str, object]:
    """Return a config with what its file leaves out, nested configs too.

    A section of the table holds `aliases` (other names of a figure, to the one that the class stores),
    `defaults`, `derived` and `configs`. `derived` maps a key to an expression: `key?` is computed only where
    the key has no value, `key*` is a list with one value per layer, whose number the expression sees as `i`.
    `section_of` gives the section of a nested config by its type.
    """
    aliases: Mapping[str, str] = section.get("aliases", {})
    found: dict[str, object] = {**section.get("defaults", {})}
    found |= {aliases.get(key, key): value for key, value in config.items()}
    for key, expression in section.get("derived", {}).items():
        name = key.rstrip("?*")
        if found.get(name) is not None:
            continue
        if key.endswith("*"):
            layers = found.get(aliases.get("num_hidden_layers", "num_hidden_layers"))
            count = layers if isinstance(layers, int) and layers < _MANY else 0
            by_layer = [_value(expression, {**found, "i": i}) for i in range(count)]
            if by_layer and None not in by_layer:
                found[name] = by_layer
        else:
            found[name] = _value(expression, found)
    kinds = found.get(aliases.get("layer_types", ""))
    if isinstance(kinds, list):
        found["layer_types"] = kinds
    for key, nested in section.get("configs", {}).items():
        given = found.get(key)
        inner: dict[str, object] = given if isinstance(given, dict) else dict(nested.get("given", {}))
        model_type = str(inner.get("model_type") or nested["type"])
        own = section_of(model_type) if model_type else None
        if own is None or (model_type == nested["type"] and nested.keys() - {"type", "given"}):
            own = nested
        found[key] = {**completed(inner, own, section_of), "model_type": model_type}
    return found


def _value(expression: str, figures: Mapping[str, object]) -> object:
    """Return the value of an expression; None where the config lacks what it takes."""
    try:
        return evaluate(expression, figures)
    except InventoryError:
        return None


_MANY = 10_000
