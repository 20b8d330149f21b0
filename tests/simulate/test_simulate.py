"""Fake execution: bytes per device of a forward pass, for models of any size, in seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import nn

import devmap
from devmap.config.values.device import CPU, DISK, Device, Tier
from devmap.plan.model import Charge, DeviceUse, Placement, Plan
from devmap.simulate.fake import simulate
from tests.effort import at_most

GPU0, GPU1 = Device(Tier.ACCELERATOR, 0), Device(Tier.ACCELERATOR, 1)
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def plan_of(
    *homes: tuple[str, *tuple[Device, ...]], capacity: int | None = None, dtype: str | None = None
) -> Plan:
    placements = tuple(Placement(path, where[0], where[-1], 0) for path, *where in homes)
    charges = (
        (Charge("headroom", 7), Charge("slots", 1000))
        if any(placement.is_streamed for placement in placements)
        else ()
    )
    uses = (
        DeviceUse(GPU0, capacity, 0, charges),
        DeviceUse(GPU1, capacity, 0),
        DeviceUse(CPU, None, 0),
        DeviceUse(DISK, None, 0),
    )
    return Plan({}, placements, uses, "manual", dtype=dtype, predicted_seconds=0.25)


def llama(**figures: int) -> nn.Module:
    config = transformers.LlamaConfig(**{**SMALL, "num_key_value_heads": 2, **figures})
    with torch.device("meta"):
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(config).eval()
    return model


SPREAD: list[tuple[str, *tuple[Device, ...]]] = [
    ("model.embed_tokens", GPU0),
    ("model.layers.0", GPU0),
    ("model.layers.1", CPU, GPU0),
    ("model.norm", GPU1),
    ("model.rotary_emb", GPU0),
    ("lm_head", GPU1),
]


def test_weights_slots_and_activations_are_told_apart() -> None:
    model = llama()
    found = simulate(model, plan_of(*SPREAD), batch_size=2, sequence_length=16)
    layer = sum(parameter.nbytes for parameter in model.get_submodule("model.layers.1").parameters())
    embedding, norm, rotary = 64 * 32 * 4, 32 * 4, 2 * 4 * 4
    assert {str(device): use.weight_bytes for device, use in found.devices.items()} == {
        "0": embedding + layer + rotary,
        "1": norm + embedding,
        "cpu": layer,
        "disk": 0,
    }
    first, second = found.devices[GPU0], found.devices[GPU1]
    assert (first.slot_bytes, second.slot_bytes) == (1000, 0)
    cache, logits = 2 * 2 * 2 * 2 * 16 * 8 * 4, 2 * 16 * 64 * 4
    assert first.activation_bytes > cache
    assert logits <= second.activation_bytes < 3 * logits
    assert first.peak_bytes == first.weight_bytes + 1000 + first.activation_bytes
    assert found.devices[CPU].activation_bytes == 0
    assert found.predicted_seconds == 0.25


def test_the_model_is_the_same_afterwards() -> None:
    model = llama()
    before = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    simulate(model, plan_of(*SPREAD), sequence_length=4)
    assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == before
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_activations_grow_with_the_batch_and_the_length() -> None:
    model = llama()
    found = [
        simulate(model, plan_of(*SPREAD), batch_size=batch, sequence_length=length)
        .devices[GPU1]
        .activation_bytes
        for batch, length in ((1, 16), (2, 16), (2, 64))
    ]
    assert found == sorted(found)
    assert found[0] * 2 == found[1] == found[2] // 4


def test_the_run_dtype_counts() -> None:
    model = llama()
    whole, half = (
        simulate(model, plan_of(("", GPU0), dtype=dtype), sequence_length=4).devices[GPU0].weight_bytes
        for dtype in (None, "bfloat16")
    )
    rotary = 2 * 4 * 4
    assert half - rotary == (whole - rotary) / 2


def test_a_limit_that_activations_pass_does_not_fit() -> None:
    model = llama()
    use = simulate(model, plan_of(("", GPU0)), sequence_length=16).devices[GPU0]
    assert simulate(model, plan_of(("", GPU0), capacity=use.peak_bytes), sequence_length=16).fits
    tight = simulate(model, plan_of(("", GPU0), capacity=use.peak_bytes - 1), sequence_length=16)
    assert not tight.fits
    assert [str(device) for device, entry in tight.devices.items() if not entry.fits] == ["0"]


@pytest.mark.parametrize(
    ("config", "class_name"),
    [
        (transformers.BertConfig(**SMALL), "BertModel"),
        (transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4), "GPT2LMHeadModel"),
        (
            transformers.T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=2),
            "T5ForConditionalGeneration",
        ),
        (
            transformers.MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4),
            "MixtralForCausalLM",
        ),
        (
            transformers.WhisperConfig(
                vocab_size=64,
                d_model=32,
                encoder_layers=2,
                decoder_layers=2,
                encoder_attention_heads=4,
                decoder_attention_heads=4,
                num_mel_bins=16,
                max_source_positions=20,
                pad_token_id=0,
            ),
            "WhisperForConditionalGeneration",
        ),
        (
            transformers.ViTConfig(
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=64,
                image_size=32,
            ),
            "ViTModel",
        ),
    ],
    ids=["bert", "gpt2", "t5", "mixtral", "whisper", "vit"],
)
def test_other_architectures_run_too(config: Any, class_name: str) -> None:
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, class_name)(config).eval()
    found = simulate(model, plan_of(("", GPU1)), batch_size=1, sequence_length=8)
    assert found.devices[GPU1].weight_bytes >= sum(parameter.nbytes for parameter in model.parameters())
    assert found.devices[GPU1].activation_bytes > 0
    assert found.devices[GPU0].peak_bytes == 0


def test_llama_3_70b_on_two_devices_takes_seconds() -> None:
    figures = {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    }
    model = llama(**figures, vocab_size=128256)
    layers = [(f"model.layers.{index}", GPU0 if index < 40 else GPU1) for index in range(80)]
    ends = [("model.norm", GPU1), ("model.rotary_emb", GPU0), ("lm_head", GPU1)]
    with at_most(million_steps=900):
        found = simulate(
            model,
            plan_of(("model.embed_tokens", GPU0), *layers, *ends, dtype="bfloat16"),
            sequence_length=2048,
        )
    total = sum(use.weight_bytes for use in found.devices.values())
    assert 141e9 < total < 142e9
    cache, logits = 40 * 2 * 8 * 128 * 2048 * 2, 128256 * 2048 * 2
    assert cache + logits <= found.devices[GPU1].activation_bytes < 1.3 * (cache + logits)


class Mixed(nn.Module):
    """Reads a weight of a child without calling the child."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply by both."""
        result: torch.Tensor = self.first(x) @ self.second.weight
        return result


def test_a_weight_used_outside_of_its_module_shows_the_mixed_devices() -> None:
    inputs = {"x": torch.zeros(2, 4)}
    assert simulate(Mixed(), plan_of(("", GPU0)), inputs=inputs).devices[GPU0].activation_bytes > 0
    with pytest.raises(RuntimeError, match="sim:1"):
        simulate(Mixed(), plan_of(("first", GPU0), ("second", GPU1)), inputs=inputs)


class Constants(nn.Module):
    """Makes tensors on its input's device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add constants."""
        return (
            x
            + torch.tensor([1.0, 2.0], device=x.device)
            + torch.tensor(3.0)
            + torch.arange(2, device=x.device)
        )


def test_constants_are_made_on_the_device_that_asks_for_them() -> None:
    model = nn.Sequential()
    model.add_module("inner", nn.Linear(2, 2))
    model.add_module("constants", Constants())
    assert (
        simulate(model, plan_of(("", GPU1)), inputs={"input": torch.zeros(3, 2)})
        .devices[GPU1]
        .activation_bytes
        > 0
    )


def test_a_model_that_does_not_say_what_it_takes_needs_inputs() -> None:
    with pytest.raises(devmap.UsageError, match="does not know what input Mixed takes") as caught:
        simulate(Mixed(), plan_of(("", GPU0)))
    assert "`inputs`" in caught.value.help
