"""What generation keeps of the past in one layer, from the figures of `config.json`.

Keys and values, or a state of fixed size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from devmap.inventory.dtypes import element_bits

if TYPE_CHECKING:
    from devmap.inventory.model import Architecture

__all__ = ["CacheShape", "figure"]

_RECURRENT_BYTES = 4
"""Of an element of a recurrent state, which kernels keep in float32."""


def figure(architecture: Architecture, *names: str) -> int:
    """Return the first of these figures that the config gives as a whole number; 0 where it gives none."""
    for name in names:
        value = architecture.figures.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return 0


class _Keeps(Enum):
    """What a layer keeps of the past."""

    ALL = "all"
    WINDOW = "window"
    STATE = "state"
    ALL_AND_STATE = "all and state"

    @classmethod
    def of(cls, kind: str) -> _Keeps:
        """Return what a layer of this type keeps; `kind` is one of the config's `layer_types`."""
        if kind == "hybrid":
            return cls.ALL_AND_STATE
        if "sliding" in kind or "chunked" in kind:
            return cls.WINDOW
        return cls.ALL if "attention" in kind and "linear" not in kind else cls.STATE


_WITH_STATE = (_Keeps.STATE, _Keeps.ALL_AND_STATE)


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
    """Tokens that a sliding-window or chunked layer keeps."""
    layers: tuple[_Keeps, ...] = ()
    """What each layer keeps; empty where all do alike."""
    own: int | None = None
    """How many layers have a cache of their own; the others use one of theirs. None for all."""
    cross_length: int = 0
    """Tokens of the encoder that a decoder's cross-attention keeps beside its own."""
    state: tuple[int, int] = (0, 0)
    """Elements of the convolution's and of the recurrent state that a layer without attention keeps of a
    sequence."""

    @classmethod
    def of(cls, architecture: Architecture, *, batch_size: int, length: int, dtype: str) -> CacheShape | None:
        """Return the cache of a model for sequences of `length` tokens.

        None where the config does not give the figures.
        """
        hidden = figure(architecture, "hidden_size", "d_model", "n_embd")
        heads = figure(
            architecture,
            "decoder_attention_heads",
            "num_attention_heads",
            "num_heads",
            "n_head",
            "n_heads",
            "attention_heads",
        )
        head_dim = figure(architecture, "head_dim", "d_kv") or (hidden // heads if heads else 0)
        kv_heads = figure(architecture, "num_key_value_heads", "num_kv_heads") or heads
        if architecture.figures.get("new_decoder_architecture") is True:
            kv_heads = heads  # Falcon repeats its keys and values for each query head before it keeps them
        elif architecture.figures.get("multi_query") is True:
            kv_heads = 1
        layer_types = architecture.figures.get("layer_types")
        layers = tuple(_Keeps.of(str(kind)) for kind in layer_types) if isinstance(layer_types, list) else ()
        tensors = 2
        if latent := figure(architecture, "kv_lora_rank"):
            kv_heads, head_dim, tensors = 1, latent + figure(architecture, "qk_rope_head_dim"), 1
        if not kv_heads or not head_dim:
            return None
        encoder = figure(architecture, "max_source_positions") or length
        cross = encoder if architecture.figures.get("is_encoder_decoder") is True else 0
        shared = figure(architecture, "num_kv_shared_layers")
        own = figure(architecture, "num_hidden_layers") - shared if shared else None
        return cls(
            batch_size,
            length,
            kv_heads,
            head_dim,
            tensors,
            dtype,
            window=_window(architecture),
            layers=layers,
            own=own,
            cross_length=cross,
            state=_state(architecture),
        )

    @property
    def has_unknown_states(self) -> bool:
        """Whether some layers keep a state whose size the config does not give."""
        return not any(self.state) and any(keeps in _WITH_STATE for keeps in self.layers)

    def tokens(self, layer: int) -> int:
        """Tokens of one sequence that a layer keeps."""
        keeps = self._keeps(layer)
        if keeps is _Keeps.STATE or (self.own is not None and layer >= self.own):
            return 0
        kept = min(self.length, self.window) if self.window and keeps is _Keeps.WINDOW else self.length
        return kept + self.cross_length

    def nbytes(self, layer: int) -> int:
        """Return the bytes of one layer's cache."""
        bits = (
            self.batch_size
            * self.tokens(layer)
            * self.heads
            * self.head_dim
            * self.tensors
            * element_bits(self.dtype)
        )
        return (bits + 7) // 8 + self._state_bytes(layer)

    def arithmetic(self, layer: int) -> str:
        """Return the product in words."""
        parts = []
        if self.tokens(layer) or not self._state_bytes(layer):
            kinds = "latent" if self.tensors == 1 else f"{self.heads} kv heads x {self.head_dim} x 2"
            width = f"{self.head_dim} {kinds}" if self.tensors == 1 else kinds
            size = f"{element_bits(self.dtype) / 8:g} bytes"
            parts.append(f"{self.batch_size} x {self.tokens(layer):,} tokens x {width} x {size}")
        if self._state_bytes(layer):
            parts.append(
                f"{self.batch_size} x a state of {self._state_bytes(layer) // self.batch_size:,} bytes"
            )
        return " + ".join(parts)

    def _keeps(self, layer: int) -> _Keeps:
        if layer < len(self.layers):
            return self.layers[layer]
        return _Keeps.WINDOW if not self.layers else _Keeps.ALL

    def _state_bytes(self, layer: int) -> int:
        if self._keeps(layer) not in _WITH_STATE:
            return 0
        convolution, recurrent = self.state
        return self.batch_size * (
            (convolution * element_bits(self.dtype) + 7) // 8 + recurrent * _RECURRENT_BYTES
        )


def _window(architecture: Architecture) -> int | None:
    if architecture.figures.get("use_sliding_window") is False:
        return None
    return figure(architecture, "sliding_window", "attention_chunk_size") or None


def _state(architecture: Architecture) -> tuple[int, int]:
    """Return the elements of the two states of a gated delta net (Qwen3-Next) or of a Mamba-2 layer.

    As transformers' caches keep them.
    """
    heads = figure(architecture, "linear_num_value_heads")
    if heads:
        keys, values = (
            figure(architecture, "linear_key_head_dim"),
            figure(architecture, "linear_value_head_dim"),
        )
        channels = 2 * figure(architecture, "linear_num_key_heads") * keys + heads * values
        return channels * figure(architecture, "linear_conv_kernel_dim"), heads * keys * values
    heads, size = figure(architecture, "mamba_n_heads"), figure(architecture, "mamba_d_state")
    if heads and size:
        inner = figure(architecture, "mamba_d_ssm") or heads * figure(architecture, "mamba_d_head")
        channels = inner + 2 * figure(architecture, "mamba_n_groups") * size
        return channels * figure(architecture, "mamba_d_conv"), inner * size
    return 0, 0
