"""The KV cache of one layer, from the figures of `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.inventory.dtypes import element_bits

if TYPE_CHECKING:
    from devmap.inventory.model import Architecture

__all__ = ["CacheShape", "figure"]

_DEFAULT_LENGTH = 2048


def figure(architecture: Architecture, *names: str) -> int:
    """The first of these figures that the config gives as a whole number; 0 where it gives none."""
    for name in names:
        value = architecture.figures.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What each token of each sequence leaves in one layer."""

    batch_size: int
    length: int
    heads: int
    """Key-value heads: fewer than query heads with grouped-query attention; 1 with MLA's one latent."""
    head_dim: int
    tensors: int
    """2 for keys and values; 1 for MLA, which keeps one latent and the rotary part of the key."""
    dtype: str
    window: int | None = None
    """Tokens that a sliding-window layer keeps."""
    sliding: tuple[bool, ...] = ()
    """For each layer whether it slides; empty where all do alike."""
    cross_length: int = 0
    """Tokens of the encoder that a decoder's cross-attention keeps beside its own."""

    @classmethod
    def of(cls, architecture: Architecture, *, batch_size: int, sequence_length: int | None, dtype: str) -> CacheShape | None:
        """The cache of a model; None where the config does not give the figures."""
        hidden = figure(architecture, "hidden_size", "d_model", "n_embd")
        heads = figure(architecture, "decoder_attention_heads", "num_attention_heads", "num_heads", "n_head")
        head_dim = figure(architecture, "head_dim", "d_kv") or (hidden // heads if heads else 0)
        kv_heads = figure(architecture, "num_key_value_heads", "num_kv_heads") or heads
        if architecture.figures.get("multi_query") is True and architecture.figures.get("new_decoder_architecture") is not True:
            kv_heads = 1
        limit = figure(architecture, "max_target_positions", "max_position_embeddings", "n_positions")
        length = sequence_length or min(_DEFAULT_LENGTH, limit or _DEFAULT_LENGTH)
        layer_types = architecture.figures.get("layer_types")
        sliding = tuple("sliding" in str(kind) for kind in layer_types) if isinstance(layer_types, list) else ()
        tensors = 2
        if latent := figure(architecture, "kv_lora_rank"):
            kv_heads, head_dim, tensors = 1, latent + figure(architecture, "qk_rope_head_dim"), 1
        if not kv_heads or not head_dim:
            return None
        encoder = figure(architecture, "max_source_positions") or length
        cross = encoder if architecture.figures.get("is_encoder_decoder") is True else 0
        window = figure(architecture, "sliding_window") or None
        return cls(batch_size, length, kv_heads, head_dim, tensors, dtype, window, sliding, cross)

    def tokens(self, layer: int) -> int:
        """Tokens of one sequence that a layer keeps."""
        slides = self.sliding[layer] if layer < len(self.sliding) else not self.sliding
        own = min(self.length, self.window) if self.window and slides else self.length
        return own + self.cross_length

    def nbytes(self, layer: int) -> int:
        """Bytes of one layer's cache."""
        return (self.batch_size * self.tokens(layer) * self.heads * self.head_dim * self.tensors * element_bits(self.dtype) + 7) // 8

    def arithmetic(self, layer: int) -> str:
        """The product in words."""
        kinds = "latent" if self.tensors == 1 else f"{self.heads} kv heads x {self.head_dim} x 2"
        width = f"{self.head_dim} {kinds}" if self.tensors == 1 else kinds
        size = f"{element_bits(self.dtype) / 8:g} bytes"
        return f"{self.batch_size} x {self.tokens(layer):,} tokens x {width} x {size}"
