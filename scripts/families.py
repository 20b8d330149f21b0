"""What `make_architectures.py` cannot see in the code of transformers.

Tiny configs, what is computed from what, buffers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_HEADS = {"num_key_value_heads?": "num_attention_heads"}
_HEAD_DIM = {"head_dim?": "hidden_size // num_attention_heads"}


@dataclass(frozen=True)
class Family:
    """One model type."""

    model_type: str
    tiny: dict[str, object]
    """A small config; each count of layers has a value of its own."""
    layer_counts: tuple[str, ...] = ("num_hidden_layers",)
    variants: tuple[dict[str, object], ...] = ()
    """Changes that bring in, or leave out, modules and tensors."""
    derived: dict[str, str] = field(default_factory=dict)
    """Figures that the config class computes; see `devmap.inventory.figures.completed`."""
    buffers: dict[str, dict[str, object]] = field(default_factory=dict)
    """Buffers that no checkpoint holds, by the end of their names."""
    uses: tuple[str, ...] = ()
    """Figures that expressions need beside those that are kept."""
    leave_out: tuple[str, ...] = ()


def _rope(head_dim: str, *, share: str = "") -> dict[str, dict[str, object]]:
    width = f"(int({head_dim} * ({share})) + 1) // 2" if share else f"({head_dim} + 1) // 2"
    spec: dict[str, object] = {"dtype": "float32", "shape": [width]}
    return {"rotary_emb.original_inv_freq": spec, "rotary_emb.inv_freq": spec}


_SHARE = "rope_parameters.partial_rotary_factor or partial_rotary_factor or rope_scaling.partial_rotary_factor or 1.0"
_TINY: dict[str, object] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_BIAS: tuple[dict[str, object], ...] = ({"attention_bias": True},)
_TOKENS: dict[str, object] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_EMBED_SCALE: dict[str, dict[str, object]] = {"embed_tokens.embed_scale": {"dtype": "default", "shape": []}}


def _llama_like(
    model_type: str,
    *variants: dict[str, object],
    derived: dict[str, str] | None = None,
    more: dict[str, object] | None = None,
    uses: tuple[str, ...] = (),
    head_dim: str = "head_dim",
) -> Family:
    rules = {**_HEAD_DIM, **_HEADS} if derived is None else derived
    return Family(
        model_type,
        {**_TINY, **(more or {})},
        variants=variants,
        derived=rules,
        buffers=_rope(head_dim, share=_SHARE),
        uses=("rope_parameters", *uses),
    )


_AFTER_WINDOW = (
    "'sliding_attention' if sliding_window is not None and i >= max_window_layers else 'full_attention'"
)
_MOE: dict[str, object] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

FAMILIES: tuple[Family, ...] = (
    _llama_like("llama", {"attention_bias": True, "mlp_bias": True}),
    _llama_like("mistral"),
    _llama_like(
        "mixtral",
        more={"num_local_experts": 4, "num_experts_per_tok": 2},
        derived=_HEADS,
        head_dim="(head_dim or hidden_size // num_attention_heads)",
    ),
    _llama_like(
        "qwen2",
        derived={**_HEADS, "sliding_window": "sliding_window if use_sliding_window else None", "layer_types*": _AFTER_WINDOW},
        uses=("use_sliding_window", "max_window_layers"),
        head_dim="(head_dim or hidden_size // num_attention_heads)",
    ),
    _llama_like(
        "qwen2_moe",
        {"mlp_only_layers": [1]},
        more={**_MOE, "shared_expert_intermediate_size": 40},
        derived={
            **_HEADS,
            "mlp_only_layers?": "[]",
            "sliding_window": "sliding_window if use_sliding_window else 0",
            "layer_types*": "'sliding_attention' if (i + 1) % 2 and i < max_window_layers and "
                            "use_sliding_window else 'full_attention'",
        },
        uses=("use_sliding_window", "max_window_layers"),
        head_dim="(head_dim or hidden_size // num_attention_heads)",
    ),
    _llama_like(
        "qwen3",
        *_BIAS,
        derived={**_HEADS, "sliding_window": "sliding_window if use_sliding_window else None", "layer_types*": _AFTER_WINDOW},
        uses=("use_sliding_window", "max_window_layers"),
    ),
    _llama_like(
        "qwen3_moe",
        {"mlp_only_layers": [1]},
        *_BIAS,
        more={**_MOE},
        derived={"mlp_only_layers?": "[]", "sliding_window": "sliding_window if use_sliding_window else "
                                                             "None"},
        uses=("use_sliding_window",),
        head_dim="(head_dim or hidden_size // num_attention_heads)",
    ),
    Family("gemma", {**_TINY, "head_dim": 8}, variants=_BIAS, buffers={**_rope("head_dim"), **_EMBED_SCALE}),
    Family(
        "gemma2",
        {**_TINY, "head_dim": 8},
        variants=_BIAS,
        derived={"layer_types*": "'sliding_attention' if (i + 1) % 2 else 'full_attention'"},
        buffers={**_rope("head_dim"), **_EMBED_SCALE},
    ),
    Family(
        "gemma3_text",
        {**_TINY, "head_dim": 8, "num_hidden_layers": 7},
        variants=_BIAS,
        derived={
            "_sliding_window_pattern?": "sliding_window_pattern or 6",
            "layer_types*": "'sliding_attention' if (i + 1) % _sliding_window_pattern else 'full_attention'",
        },
        buffers={
            **{
                f"rotary_emb.{kind}_{word}inv_freq": {
                    "dtype": "float32", "shape": ["(head_dim + 1) // 2"], "when": f"'{kind}' in layer_types",
                }
                for kind in ("full_attention", "sliding_attention")
                for word in ("original_", "")
            },
            **_EMBED_SCALE,
        },
    ),
    Family("bloom", {"vocab_size": 64, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_TOKENS}, layer_counts=("n_layer",)),
    Family(
        "gpt2",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40, **_TOKENS},
        layer_counts=("n_layer",),
        variants=({"add_cross_attention": True},),
    ),
    Family(
        "gptj",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40, "rotary_dim": 4, **_TOKENS},
        layer_counts=("n_layer",),
        buffers={"attn.embed_positions": {"dtype": "float32", "shape": ["n_positions", ("rotary_dim or "
                                                                                       "n_embd // n_head")]}},
        uses=("rotary_dim",),
    ),
    Family(
        "gpt_neox",
        {key: value for key, value in _TINY.items() if key != "num_key_value_heads"},
        variants=({"attention_bias": False},),
        buffers=_rope("(hidden_size // num_attention_heads)", share="rope_parameters.partial_rotary_factor or rotary_pct or 0.25"),
        uses=("rope_parameters",),
    ),
    Family(
        "opt",
        {
            "vocab_size": 64, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
            "max_position_embeddings": 40, "word_embed_proj_dim": 32, **_TOKENS,
        },
        variants=(
            {"word_embed_proj_dim": 16}, {"do_layer_norm_before": False}, {"enable_bias": False}, {"layer_norm_elementwise_affine": False},
        ),
        derived={"word_embed_proj_dim?": "hidden_size"},
    ),
    Family(
        "falcon",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, **_TOKENS},
        variants=(
            {"new_decoder_architecture": True, "num_kv_heads": 2}, {"bias": True}, {"alibi": True}, {"parallel_attn": False},
            {"multi_query": False},
        ),
        derived={"num_kv_heads?": "num_attention_heads", "ffn_hidden_size?": "hidden_size * 4"},
        buffers=_rope("(hidden_size // num_attention_heads)"),
    ),
    Family(
        "t5",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 5, "num_heads": 4, **_TOKENS},
        layer_counts=("num_layers", "num_decoder_layers"),
        variants=({"feed_forward_proj": "gated-gelu"},),
        derived={"num_decoder_layers?": "num_layers", "tie_word_embeddings": "True"},
    ),
    Family(
        "bert",
        {
            "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
            "max_position_embeddings": 40, "pad_token_id": 0,
        },
        variants=({"add_cross_attention": True, "is_decoder": True},),
        buffers={
            "embeddings.position_ids": {"dtype": "int64", "shape": ["1", "max_position_embeddings"]},
            "embeddings.token_type_ids": {"dtype": "int64", "shape": ["1", "max_position_embeddings"]},
        },
    ),
    Family(
        "whisper",
        {
            "vocab_size": 64, "d_model": 32, "encoder_layers": 3, "decoder_layers": 5, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_source_positions": 20,
            "max_target_positions": 24, "num_mel_bins": 8, "decoder_start_token_id": 1, **_TOKENS,
        },
        layer_counts=("encoder_layers", "decoder_layers"),
        leave_out=("WhisperForCausalLM",),
    ),
    Family(
        "deepseek_v3",
        {
            **_TINY, "num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 8, "n_group": 2, "topk_group": 1,
            "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 8, "q_lora_rank": 12, "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8, "v_head_dim": 8,
        },
        variants=({"q_lora_rank": None}, {"attention_bias": True}),
        derived={**_HEADS, "head_dim": "qk_rope_head_dim"},
        buffers=_rope("qk_rope_head_dim"),
    ),
    Family(
        "phi3",
        {**_TINY},
        derived=_HEADS,
        buffers=_rope("(head_dim or hidden_size // num_attention_heads)", share=_SHARE),
        uses=("rope_parameters",),
    ),
)  # fmt: skip
