"""The small Llama that the tests of quantised models quantise."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

IDS = torch.tensor([[1, 5, 9, 2]])


def small_llama(*, attention_bias: bool = False, tied: bool = False) -> LlamaForCausalLM:
    """Return four layers of 64 numbers a token in bfloat16, the same at each call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        attention_bias=attention_bias,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # a model starts with biases of zero, which would hide another block's
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model.to(torch.bfloat16)
