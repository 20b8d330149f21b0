"""Models for the planner's benchmark.

Public architectures at real size on the meta device, and trees of many tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import transformers
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ARCHITECTURES", "QUICK", "Architecture", "build", "expert_tree", "whole_classes"]


@dataclass(frozen=True)
class Architecture:
    """A public model: its class in transformers and what its config.json adds to the class's defaults."""

    name: str
    class_name: str
    figures: dict[str, object] = field(default_factory=dict)


def _decoder(
    hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, **more: object
) -> dict[str, object]:
    """The figures that Llama, Qwen2, Gemma2 and Mixtral share."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        **more,
    }


TIED: dict[str, object] = {"tie_word_embeddings": True}

ARCHITECTURES = (
    Architecture("Llama-3-8B", "LlamaForCausalLM", _decoder(4096, 14336, 32, 32, 8, 128256)),
    Architecture("Llama-3.2-1B, tied", "LlamaForCausalLM", _decoder(2048, 8192, 16, 32, 8, 128256, **TIED)),
    Architecture("Llama-2-70B", "LlamaForCausalLM", _decoder(8192, 28672, 80, 64, 8, 32000)),
    Architecture("Qwen2.5-0.5B, tied", "Qwen2ForCausalLM", _decoder(896, 4864, 24, 14, 2, 151936, **TIED)),
    Architecture("Qwen2.5-7B", "Qwen2ForCausalLM", _decoder(3584, 18944, 28, 28, 4, 152064)),
    Architecture(
        "Gemma2-2B, tied", "Gemma2ForCausalLM", _decoder(2304, 9216, 26, 8, 4, 256000, head_dim=256, **TIED)
    ),
    Architecture(
        "Gemma2-27B, tied",
        "Gemma2ForCausalLM",
        _decoder(4608, 36864, 46, 32, 16, 256000, head_dim=128, **TIED),
    ),
    Architecture("Mistral-7B", "MistralForCausalLM", _decoder(4096, 14336, 32, 32, 8, 32000)),
    Architecture(
        "Mixtral-8x7B", "MixtralForCausalLM", _decoder(4096, 14336, 32, 32, 8, 32000, num_local_experts=8)
    ),
    Architecture("GPT-2, tied", "GPT2LMHeadModel", {"tie_word_embeddings": True}),
    Architecture("GPT-2 XL, tied", "GPT2LMHeadModel", {"n_embd": 1600, "n_layer": 48, "n_head": 25}),
    Architecture(
        "BLOOM-7B1, tied",
        "BloomForCausalLM",
        {"vocab_size": 250880, "hidden_size": 4096, "n_layer": 30, "n_head": 32},
    ),
    Architecture(
        "OPT-13B, tied",
        "OPTForCausalLM",
        {
            "hidden_size": 5120,
            "ffn_dim": 20480,
            "num_hidden_layers": 40,
            "num_attention_heads": 40,
            "word_embed_proj_dim": 5120,
            "vocab_size": 50272,
            "max_position_embeddings": 2048,
        },
    ),
    Architecture(
        "GPT-J-6B",
        "GPTJForCausalLM",
        {
            "n_embd": 4096,
            "n_layer": 28,
            "n_head": 16,
            "rotary_dim": 64,
            "vocab_size": 50400,
            "tie_word_embeddings": False,
        },
    ),
    Architecture(
        "GPT-NeoX-20B",
        "GPTNeoXForCausalLM",
        {
            "hidden_size": 6144,
            "intermediate_size": 24576,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "vocab_size": 50432,
            "tie_word_embeddings": False,
        },
    ),
    Architecture(
        "Falcon-7B, tied",
        "FalconForCausalLM",
        {
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "vocab_size": 65024,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
        },
    ),
    Architecture(
        "T5-3B, tied",
        "T5ForConditionalGeneration",
        {"d_model": 1024, "d_kv": 128, "d_ff": 16384, "num_layers": 24, "num_heads": 32},
    ),
    Architecture(
        "Whisper-large-v3, tied",
        "WhisperForConditionalGeneration",
        {
            "vocab_size": 51866,
            "d_model": 1280,
            "encoder_layers": 32,
            "decoder_layers": 32,
            "encoder_attention_heads": 20,
            "decoder_attention_heads": 20,
            "encoder_ffn_dim": 5120,
            "decoder_ffn_dim": 5120,
            "num_mel_bins": 128,
        },
    ),
    Architecture(
        "BERT-large, tied",
        "BertForMaskedLM",
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    ),
)
QUICK = frozenset(
    {"Llama-3-8B", "Llama-3.2-1B, tied", "GPT-2, tied", "Gemma2-2B, tied", "T5-3B, tied", "BERT-large, tied"}
)
"""Enough for the grid of cases in a quick run: large heads, ties over two and four names, buffers, an encoder
alone."""


def build(architecture: Architecture) -> nn.Module:
    """The model on meta in bfloat16, its ties made."""
    model_class = getattr(transformers, architecture.class_name)
    config = model_class.config_class(**architecture.figures)
    with torch.device("meta"):
        # The entry that takes a dtype.
        model: nn.Module = model_class._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001
        tie_weights: Callable[[], None] = model.tie_weights  # type: ignore[assignment]
        tie_weights()
    return model


def whole_classes(model: nn.Module) -> list[str]:
    """The classes that the model's own code keeps whole, those that occur in it."""
    asked = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    return sorted(asked & {type(module).__name__ for module in model.modules()})


class Weight(nn.Module):
    """A linear layer's weight and nothing else, quick to make."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns, device="meta", dtype=torch.bfloat16))


class Expert(nn.Module):
    """Three projections."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = Weight(inner, hidden)
        self.up_proj = Weight(inner, hidden)
        self.down_proj = Weight(hidden, inner)


class Attention(nn.Module):
    """Latent attention with DeepSeek-V3's shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.q_a_proj = Weight(1536, 7168)
        self.q_b_proj = Weight(24576, 1536)
        self.kv_a_proj = Weight(576, 7168)
        self.kv_b_proj = Weight(32768, 512)
        self.o_proj = Weight(7168, 16384)


class Router(nn.Module):
    """A router, one module per routed expert, and a shared expert."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.gate = Weight(experts, 7168)
        self.experts = nn.ModuleList(Expert(7168, 2048) for _ in range(experts))
        self.shared_experts = Expert(7168, 2048)


class Layer(nn.Module):
    """Attention and experts."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.mlp = Router(experts)


class Decoder(nn.Module):
    """An embedding and layers."""

    def __init__(self, layers: int, experts: int) -> None:
        super().__init__()
        self.embed_tokens = Weight(129280, 7168)
        self.layers = nn.ModuleList(Layer(experts) for _ in range(layers))


class LanguageModel(nn.Module):
    """A decoder and its head."""

    def __init__(self, layers: int, experts: int) -> None:
        super().__init__()
        self.all_tied_weights_keys: dict[str, str] = {}  # transformers' planner reads it
        self.model = Decoder(layers, experts)
        self.lm_head = Weight(129280, 7168)


def expert_tree(layers: int, experts: int = 256) -> nn.Module:
    """DeepSeek-V3's published shape with one module per expert in every layer.

    61 layers are 47,399 tensors.
    """
    return LanguageModel(layers, experts)
