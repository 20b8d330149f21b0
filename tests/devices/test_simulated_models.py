"""Real architectures on simulated devices give the CPU's numbers, bit for bit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map_only

from devmap.testing import simulated_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def ids() -> torch.Tensor:
    return torch.randint(3, 64, (2, 7), generator=torch.Generator().manual_seed(1))


def text() -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": ids(), "attention_mask": mask}


def both() -> dict[str, torch.Tensor]:
    return {"input_ids": ids(), "decoder_input_ids": ids()}


def audio() -> dict[str, torch.Tensor]:
    return {
        "input_features": torch.randn(2, 16, 40, generator=torch.Generator().manual_seed(2)),
        "decoder_input_ids": ids(),
    }


def whisper() -> Any:
    return transformers.WhisperConfig(
        vocab_size=64,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_mel_bins=16,
        max_source_positions=20,
        max_target_positions=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )


MODELS: dict[str, tuple[Callable[[], Any], str, Callable[[], dict[str, torch.Tensor]]]] = {
    "bert": (lambda: transformers.BertConfig(**_SMALL), "BertModel", text),
    "llama": (lambda: transformers.LlamaConfig(**_SMALL, num_key_value_heads=2), "LlamaForCausalLM", text),
    "gpt2": (
        lambda: transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
        "GPT2LMHeadModel",
        text,
    ),
    "t5": (
        lambda: transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2),
        "T5ForConditionalGeneration",
        both,
    ),
    "mixtral": (
        lambda: transformers.MixtralConfig(**_SMALL, num_key_value_heads=2, num_local_experts=4),
        "MixtralForCausalLM",
        text,
    ),
    "whisper": (whisper, "WhisperForConditionalGeneration", audio),
}


def build(name: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    config, class_name, inputs = MODELS[name]
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, class_name)(config()).eval()
    return model, inputs()


@pytest.mark.parametrize("name", MODELS)
def test_a_model_wholly_on_one_device_equals_the_cpu_bit_for_bit(name: str) -> None:
    model, inputs = build(name)
    with torch.no_grad():
        expected = model(**inputs)[0]
    with simulated_devices({0: "5MB", 1: "5MB"}) as devices, torch.no_grad():
        model.to("sim:1")
        result = model(**{key: value.to("sim:1") for key, value in inputs.items()})[0]
        assert result.device == torch.device("sim:1")
        assert torch.equal(result.cpu(), expected)
        assert devices[0].peak_bytes == 0
        assert devices[1].ledger.held_bytes == sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_with_gradients_a_model_equals_the_cpu_s_plain_attention(name: str) -> None:
    model, inputs = build(name)
    with sdpa_kernel(SDPBackend.MATH):
        expected = model(**inputs)[0]
    with simulated_devices({1: "5MB"}):
        result = model.to("sim:1")(**{key: value.to("sim:1") for key, value in inputs.items()})[0]
        assert torch.equal(result.detach().cpu(), expected.detach())


def test_a_model_spread_by_hand_equals_the_cpu() -> None:
    model, inputs = build("llama")
    whole: Any = copy.deepcopy(model)
    with torch.no_grad():
        expected = model(**inputs)[0]
    with simulated_devices({0: "5MB", 1: "5MB"}) as devices, torch.no_grad():
        for part, device in (
            (whole.model, "sim:0"),
            (whole.model.layers[1], "sim:1"),
            (whole.model.norm, "sim:1"),
            (whole.lm_head, "sim:1"),
        ):
            part.to(device)
        there = {key: value.to("sim:0") for key, value in inputs.items()}
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            whole(**there)

        def bring(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            device = next(module.parameters()).device
            return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (args, kwargs))

        for module in (whole.model.layers[1], whole.model.norm, whole.lm_head):
            module.register_forward_pre_hook(bring, with_kwargs=True)
        result = whole(**there)[0]
        assert result.device == torch.device("sim:1")
        assert torch.equal(result.cpu(), expected)
        assert devices[0].used_bytes > 0
        assert devices[1].used_bytes > 0


def test_generation_gives_the_same_tokens() -> None:
    model, _ = build("llama")
    generator: Any = model
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = generator.generate(ids(), **options)
    with simulated_devices({0: "5MB"}):
        result = generator.to("sim:0").generate(ids().to("sim:0"), **options)
        assert torch.equal(result.cpu(), expected)
