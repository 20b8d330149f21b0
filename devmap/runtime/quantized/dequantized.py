"""Quantised weights that are loaded whole: each is made by Transformers' own code when it is brought home.

Nothing of it is kept: a weight is made in host memory from its stored parts, copied to where it lives (a
device, host memory, the offload folder), and let go of. So a load needs room for one weight at a time beside
what it places.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devmap.errors import LoadError
from devmap.runtime.quantized.quantizer import quantizer_of
from devmap.runtime.transformers_conversion import run_transform, targets_of, transforms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import nn

    from devmap.inventory.quantization import Quantization
    from devmap.inventory.stored.checkpoint import Checkpoint, StoredTensor

__all__ = ["dequantized_weights"]


def dequantized_weights(
    model: nn.Module, checkpoint: Checkpoint, quantization: Quantization
) -> Mapping[str, Callable[[], torch.Tensor]]:
    """Return what makes each weight of the model whose stored parts are quantised, by its name in the model.

    The model is on meta, without the modules that would run them packed.

    Raises:
        LoadError: when Transformers does not dequantise this method while it loads, or cannot here.
    """
    quantizer = quantizer_of(model, quantization, dequantize=True)
    if "dequantize" not in quantizer.get_load_operations():
        raise LoadError(
            f"Transformers does not dequantise {quantization.label} while it loads a checkpoint",
            help="remove model.dequantize, or load a checkpoint of the model that is not quantised",
        )
    names = model.state_dict().keys()
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for first, (transform, sources) in transforms_of(model, checkpoint.tensors, quantizer).items():
        if getattr(transform, "operations", None):
            stored = [(checkpoint.tensors[name], pattern) for name, pattern in sources]
            for target in targets_of(first, transform) & names:
                makers[target] = _Maker(target, first, transform, stored, model, quantizer)
    return makers


@dataclass(frozen=True)
class _Maker:
    """Makes one weight, as often as it is asked to."""

    target: str
    first: str
    transform: Any
    stored: Sequence[tuple[StoredTensor, str]]
    model: nn.Module
    quantizer: Any

    def __call__(self) -> torch.Tensor:
        # A transform collects what it is given: the one that is kept stays empty.
        made = run_transform(
            self.first, copy.deepcopy(self.transform), self.stored, self.model, self.quantizer
        )
        return made[self.target].contiguous()
