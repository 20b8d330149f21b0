"""Checkpoints of real size with random weights, written once by this script: no model hub is needed.

Usage: python benchmarks/checkpoints.py [FOLDER]
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

__all__ = ["LARGE", "MEDIUM", "SMALL", "Size", "drop_from_cache", "files_of", "llama", "warm_up"]

SHARD_BLOCKS = 4


@dataclass(frozen=True)
class Size:
    """A Llama in fp32 by its blocks."""

    name: str
    blocks: int
    hidden: int
    intermediate: int

    @property
    def block_bytes(self) -> int:
        """Bytes of one block."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.hidden // 2
        return 4 * (attention + 3 * self.hidden * self.intermediate + 2 * self.hidden)


LARGE = Size("llama-2.2GB", 12, 2048, 5504)
MEDIUM = Size("llama-1.1GB", 6, 2048, 5504)
SMALL = Size("llama-0.1GB", 12, 512, 1376)


def llama(size: Size, *, folder: Path | None = None) -> Path:
    """The folder of that checkpoint, written if it is not there.

    A config and a shard for every four blocks.
    """
    root = folder or Path(
        os.environ.get("DEVMAP_BENCHMARKS", Path(tempfile.gettempdir()) / "devmap-benchmarks")
    )
    target = root / size.name
    if (target / "model.safetensors.index.json").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(
        hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.blocks,
        num_attention_heads=size.hidden // 64, num_key_value_heads=size.hidden // 128,
        vocab_size=1000, max_position_embeddings=512, tie_word_embeddings=False,
    )  # fmt: skip
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(target)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in LlamaForCausalLM(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    shards: dict[str, list[str]] = {}
    for name in shapes:
        part = name.split(".")
        shard = f"{int(part[2]) // SHARD_BLOCKS:03d}" if "layers" in part else "rest"
        shards.setdefault(f"model-{shard}.safetensors", []).append(name)
    for file, names in shards.items():
        save_file(
            {
                name: torch.ones(shapes[name])
                if len(shapes[name]) == 1
                else torch.randn(shapes[name], generator=generator).mul_(0.02)
                for name in names
            },
            target / file,
            metadata={"format": "pt"},
        )
    index = {"metadata": {}, "weight_map": {name: file for file, names in shards.items() for name in names}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    os.sync()
    return target


def files_of(folder: Path) -> list[Path]:
    """The shards."""
    return sorted(folder.glob("*.safetensors"))


def drop_from_cache(folder: Path) -> None:
    """Let the next read of the shards come from the disk.

    Pages that a process has mapped stay, so unmap them first.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="utf-8")


def warm_up(folder: Path) -> None:
    """Bring the shards into the page cache."""
    buffer = bytearray(8 << 20)
    for path in files_of(folder):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


if __name__ == "__main__":
    for each in (SMALL, MEDIUM, LARGE):
        print(llama(each, folder=Path(sys.argv[1]) if len(sys.argv) > 1 else None))
