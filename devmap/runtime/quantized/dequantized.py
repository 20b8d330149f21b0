"""Quantised weights that are loaded whole: each is made by Transformers' own code when it is brought home.

Nothing of it is kept: a weight is made in host memory from its stored parts, copied to where it lives (a
device, host memory, the offload folder), and let go of. So a load needs room for one weight at a time beside
what it places.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from devmap.errors import LoadError
from devmap.runtime.quantized.quantizer import quantizer_of
from devmap.runtime.transformers_conversion import read_stored, targets_of, transforms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
        transform = copy.deepcopy(self.transform)  # it collects what it is given
        for tensor, pattern in self.stored:
            transform.add_tensor(self.first, tensor.name, pattern, read_stored(tensor))
        try:
            with torch.no_grad():
                made: Mapping[str, Any] = transform.convert(
                    self.first,
                    model=self.model,
                    config=getattr(self.model, "config", None),
                    hf_quantizer=self.quantizer,
                )
        except Exception as error:
            # The code of Transformers' operations and of the method's library runs; what it raises is the
            # reason.
            raise LoadError(
                f"'{self.target}' could not be dequantised by Transformers: {type(error).__name__}: {error}",
                help="compare the versions of transformers and of the method's "
                "package with those that saved it",
            ) from error
        value = made[self.target]
        found: torch.Tensor = value[0] if isinstance(value, list) else value
        return found.contiguous()
