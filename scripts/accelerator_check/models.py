"""Models of chosen size with random weights, written as a user's checkpoint.

Config.json and safetensors shards.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors.torch import save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["SHAPES", "Shape", "checkpoint", "drop_from_cache", "inputs_of", "plain", "stored_bytes"]

_SHARD_BYTES = 1 << 30


@dataclass(frozen=True)
class Shape:
    """A transformers class with the figures of a small and of a real size."""

    config_class: str
    model_class: str
    block_class: str
    small: Mapping[str, Any]
    real: Mapping[str, Any]


_COMMON = {"vocab_size": 512, "max_position_embeddings": 256, "tie_word_embeddings": False}

SHAPES: dict[str, Shape] = {
    "llama": Shape(
        "LlamaConfig",
        "LlamaForCausalLM",
        "LlamaDecoderLayer",
        _COMMON
        | {
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        {
            "vocab_size": 32000,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 22,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
    ),
    "mixtral": Shape(
        "MixtralConfig",
        "MixtralForCausalLM",
        "MixtralDecoderLayer",
        _COMMON
        | {
            "hidden_size": 128,
            "intermediate_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_local_experts": 4,
        },
        {
            "vocab_size": 32000,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 12,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "num_local_experts": 8,
            "tie_word_embeddings": False,
        },
    ),
    "t5": Shape(
        "T5Config",
        "T5ForConditionalGeneration",
        "T5Block",
        {
            "vocab_size": 512,
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 256,
            "num_layers": 3,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
        {
            "vocab_size": 32128,
            "d_model": 1024,
            "d_kv": 64,
            "d_ff": 4096,
            "num_layers": 24,
            "num_heads": 16,
            "decoder_start_token_id": 0,
        },
    ),
    "whisper": Shape(
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        "WhisperDecoderLayer",
        {
            "vocab_size": 512,
            "d_model": 128,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 256,
            "decoder_ffn_dim": 256,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
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
    # About 12 GB in bfloat16: one and a half times the resident budget that the speed section gives it.
    "large": Shape(
        "LlamaConfig",
        "LlamaForCausalLM",
        "LlamaDecoderLayer",
        _COMMON
        | {
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 26,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
        },
    ),
}


def checkpoint(name: str, root: Path, *, real: bool) -> Path:
    """Return the folder of a model in bfloat16 (float32 at the small size), written the first time.

    Weights are drawn on the accelerator where there is one: the host would take a minute for each.
    """
    target = root / f"{name}-{'real' if real else 'small'}"
    if (target / "written").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    shape = SHAPES[name]
    config = getattr(transformers, shape.config_class)(**(shape.real if real else shape.small))
    config.architectures = [shape.model_class]
    dtype = torch.bfloat16 if real else torch.float32
    config.dtype = dtype
    config.save_pretrained(target)
    with torch.device("meta"):
        model = getattr(transformers, shape.model_class)(config)
    owned = {name for name, _ in model.named_parameters()}  # a tied parameter stands there once
    saved = {name: value for name, value in model.state_dict().items() if name in owned}
    shard: dict[str, torch.Tensor] = {}
    placed: dict[str, str] = {}
    generator = torch.Generator("cuda" if torch.cuda.is_available() else "cpu").manual_seed(11)
    number = 0
    for key, value in saved.items():
        shard[key] = _drawn(value, dtype, generator)
        if sum(each.nbytes for each in shard.values()) >= _SHARD_BYTES:
            number = _write(shard, target, number, placed)
            shard = {}
    if shard:
        _write(shard, target, number, placed)
    index = {"metadata": {}, "weight_map": placed}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (target / "written").touch()
    os.sync()
    return target


def _drawn(like: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=torch.float32)
    value = drawn.mul_(0.02) if like.dim() > 1 else drawn.mul_(0.02).add_(1.0)
    return value.to(dtype).cpu().contiguous()


def _write(shard: dict[str, torch.Tensor], target: Path, number: int, placed: dict[str, str]) -> int:
    file = f"model-{number:03d}.safetensors"
    save_file(shard, target / file, metadata={"format": "pt"})
    placed.update(dict.fromkeys(shard, file))
    return number + 1


def plain(name: str, folder: Path, device: torch.device) -> Any:
    """Return the model as transformers loads it, wholly on one device."""
    model: Any = getattr(transformers, SHAPES[name].model_class).from_pretrained(folder)
    return model.eval().to(device)


def inputs_of(
    name: str, model: Any, device: torch.device, *, batch: int = 2, length: int = 24
) -> dict[str, torch.Tensor]:
    """Return inputs for a forward pass, padded on the left in the first row."""
    generator = torch.Generator().manual_seed(3)
    vocabulary = model.config.vocab_size
    ids = torch.randint(3, vocabulary, (batch, length), generator=generator)
    if name == "whisper":
        shape = (batch, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        features = torch.randn(shape, generator=generator).to(next(model.parameters()).dtype)
        return {"input_features": features.to(device), "decoder_input_ids": ids[:, :6].to(device)}
    if name == "t5":
        return {"input_ids": ids.to(device), "decoder_input_ids": ids[:, :6].to(device)}
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def stored_bytes(folder: Path) -> int:
    """Return the bytes of all shards."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def drop_from_cache(folder: Path) -> bool:
    """Let the next read of the shards come from the disk; whether the system has a way to do so."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in sorted(folder.glob("*.safetensors")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    return True
