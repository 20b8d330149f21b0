"""What is charged for a cache is what transformers keeps.

Measured on real architectures, small ones, layer by layer.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from devmap.config.model.placement_config import Workload
from devmap.inventory.atoms import atoms
from devmap.inventory.model import Architecture, Inventory
from devmap.planning.problem.kv_cache import CacheShape
from devmap.planning.problem.workload import charges

BATCH, LENGTH, WINDOW = 2, 12, 5
COMMON: dict[str, Any] = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
GROUPED = {**LLAMA, "num_key_value_heads": 2}
EXPERTS: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}

MODELS: dict[str, dict[str, Any]] = {
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": WINDOW},
    "qwen2": {**GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": WINDOW},
    "gemma3_text": {**GROUPED, "head_dim": 8, "sliding_window": WINDOW, "num_hidden_layers": 7},
    "gpt_oss": {**GROUPED, **EXPERTS, "head_dim": 16, "sliding_window": WINDOW},
    "llama4_text": {
        **GROUPED,
        **EXPERTS,
        "head_dim": 16,
        "attention_chunk_size": WINDOW,
        "intermediate_size_mlp": 32,
    },
    "deepseek_v3": {**LLAMA, "num_key_value_heads": 4, **EXPERTS, **MLA},
    "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4},
    "bloom": {"hidden_size": 64, "n_layer": 3, "n_head": 4},
    "opt": {**LLAMA, "ffn_dim": 64, "word_embed_proj_dim": 64},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 3},
    "xglm": {"d_model": 64, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64},
    "falcon": {**LLAMA, "multi_query": True},
    "falcon ": {**LLAMA, "num_kv_heads": 2, "new_decoder_architecture": True},
    "qwen3_next": {
        **GROUPED,
        **EXPERTS,
        "head_dim": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
    "bamba": {**GROUPED, **MAMBA, "mamba_n_heads": 8, "attn_layer_indices": [1, 3]},
    "falcon_h1": {**GROUPED, **MAMBA, "mamba_d_ssm": 64},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 64, "num_layers": 3, "num_heads": 4},
}


def _kept(layer: object) -> int:
    """Bytes of one layer's cache."""
    states: list[torch.Tensor] = []
    for name in ("keys", "values", "conv_states", "recurrent_states"):
        found = getattr(layer, name, None)
        if found is not None:
            states += found.values() if isinstance(found, dict) else [found]
    return sum(state.numel() * state.element_size() for state in states)


def _slides(layer: object) -> bool:
    return "Sliding" in type(layer).__name__


@pytest.mark.parametrize("model_type", MODELS)
def test_each_layer_is_charged_what_transformers_keeps(model_type: str) -> None:
    figures = AutoConfig.for_model(model_type.strip(), **COMMON, **MODELS[model_type])
    both = bool(getattr(figures, "is_encoder_decoder", False))
    model = (AutoModelForSeq2SeqLM if both else AutoModelForCausalLM).from_config(figures).eval()
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    with torch.no_grad():
        cache = model(ids, **({"decoder_input_ids": ids} if both else {}), use_cache=True).past_key_values
    layers = cache.self_attention_cache.layers if both else cache.layers
    cross = [_kept(layer) for layer in cache.cross_attention_cache.layers] if both else [0] * len(layers)
    # the newest token of a window is there while its step runs, and not between two steps
    real = [_kept(layer) * WINDOW // (WINDOW - 1) if _slides(layer) else _kept(layer) for layer in layers]

    inventory = Inventory.from_module(model)
    found = charges(
        Workload(batch_size=BATCH, sequence_length=LENGTH), inventory, atoms(inventory), dtype=None
    )
    (charged,) = [charge for charge in found.by_kind if charge.what == "kv cache"]
    assert list(charged.by_atom.values()) == [own + other for own, other in zip(real, cross, strict=True)]
    assert not found.notes


def test_states_of_unknown_size_are_said_not_to_be_counted() -> None:
    figures = {**GROUPED, "layer_types": ["conv", "full_attention"]}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("lfm2", **COMMON, **{**figures, "num_hidden_layers": 2})
    )
    inventory = Inventory.from_module(model)
    found = charges(
        Workload(batch_size=BATCH, sequence_length=LENGTH), inventory, atoms(inventory), dtype=None
    )
    assert found.notes == (
        "The model's config does not give the size of its recurrent layers' state: it is not counted.",
    )
    assert sorted(size for charge in found.by_kind for size in charge.by_atom.values()) == [
        0,
        BATCH * LENGTH * 2 * 16 * 2 * 4,
    ]


def test_layers_that_use_the_cache_of_others_keep_none() -> None:
    architecture = Architecture("gemma3n_text", "G", {**GROUPED, "num_kv_shared_layers": 2})
    shape = CacheShape.of(architecture, batch_size=1, length=10, dtype="bfloat16")
    assert shape is not None
    assert [shape.nbytes(layer) for layer in range(4)] == [10 * 2 * 16 * 2 * 2] * 2 + [0] * 2


def test_a_window_that_is_switched_off_limits_nothing() -> None:
    figures = {**GROUPED, "sliding_window": 4, "use_sliding_window": False}
    shape = CacheShape.of(Architecture("qwen2_5_vl", "Q", figures), batch_size=1, length=10, dtype="bfloat16")
    assert shape is not None
    assert shape.tokens(0) == 10


def test_the_arithmetic_tells_tokens_and_states() -> None:
    figures = {
        **GROUPED,
        **MAMBA,
        "mamba_n_groups": 1,
        "mamba_d_conv": 4,
        "layer_types": ["linear_attention", "full_attention", "hybrid"],
    }
    shape = CacheShape.of(Architecture("x", "X", figures), batch_size=2, length=10, dtype="bfloat16")
    assert shape is not None
    state = "2 x a state of 2,688 bytes"  # (64 + 2 x 8) x 4 at 2 bytes, 64 x 8 at 4
    tokens = "2 x 10 tokens x 2 kv heads x 16 x 2 x 2 bytes"
    assert [shape.arithmetic(layer) for layer in range(3)] == [state, tokens, f"{tokens} + {state}"]
