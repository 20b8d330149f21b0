"""`generate` with an assistant model gives the plain model's tokens, whatever holds the two."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import devmap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ENCODER_DECODER: dict[str, Any] = {
    "d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64, "vocab_size": 60,
}  # fmt: skip


def text_config(layers: int) -> Any:
    return LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        vocab_size=60,
        eos_token_id=None,
        pad_token_id=0,
    )


def bart(layers: int) -> Any:
    config = BartConfig(
        **ENCODER_DECODER,
        encoder_layers=layers,
        decoder_layers=layers,
        eos_token_id=None,
        forced_eos_token_id=None,
    )
    return BartForConditionalGeneration(config)


def whisper(layers: int) -> Any:
    config = WhisperConfig(
        **ENCODER_DECODER,
        encoder_layers=layers,
        decoder_layers=layers,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=40,
        eos_token_id=59,
        pad_token_id=0,
        bos_token_id=1,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    return WhisperForConditionalGeneration(config)


def llava(layers: int) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
        projection_dim=16,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text_config(layers), image_token_index=58, vision_feature_layer=-1
    )
    return LlavaForConditionalGeneration(config)


IDS = torch.tensor([[3, 5, 9, 7]])
GROUPS: dict[str, tuple[Callable[[int], Any], dict[str, torch.Tensor]]] = {
    "causal": (lambda layers: LlamaForCausalLM(text_config(layers)), {"input_ids": IDS}),
    "seq2seq": (bart, {"input_ids": IDS}),
    "speech": (whisper, {"input_features": torch.linspace(-1, 1, 320).view(1, 8, 40)}),
    "image-text": (
        llava,
        {
            "input_ids": torch.tensor([[3, 58, 58, 58, 58, 5]]),
            "pixel_values": torch.linspace(-1, 1, 192).view(1, 3, 8, 8),
        },
    ),
}


def load(folder: Path, memory: dict[int | str, int]) -> Any:
    path = folder / "x.devmap.yaml"
    path.write_text(json.dumps({"version": 1, "model": {"checkpoint": "."}, "max_memory": memory}))
    return devmap.load(path, progress=False)


@pytest.mark.parametrize("group", GROUPS)
def test_an_assistant_drafts_and_the_tokens_are_the_plain_models(group: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, inputs = GROUPS[group]
    model, assistant = make(5).eval(), make(1).eval()
    options = {**inputs, "max_new_tokens": 8, "do_sample": False}
    wanted = model.generate(**options)
    sizes = []
    for part, name in ((model, "model"), (assistant, "assistant")):
        part.save_pretrained(tmp_path / name)
        sizes.append(sum(tensor.nbytes for tensor in part.state_dict().values()))
    total, small = sizes
    memories: list[dict[int | str, int]] = [
        {0: total * 3 // 4, 1: total * 3 // 4},
        {0: total // 2, 1: total // 3, "disk": 10**9},
    ]
    drafts: list[dict[int | str, int] | None] = [None, {1: small * 2}, {1: small // 2, "disk": 10**9}]
    for memory in memories:
        for drafting in drafts:
            with devmap.testing.simulated_devices({0: "4MB", 1: "4MB"}, activations=False):
                loaded = load(tmp_path / "model", memory)
                helper = assistant if drafting is None else load(tmp_path / "assistant", drafting)
                found = loaded.generate(**options, assistant_model=helper)
                assert torch.equal(found.cpu(), wanted), (memory, drafting)
