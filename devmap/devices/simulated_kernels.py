"""Kernels that accelerators have and the CPU lacks, or has under another name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["KERNELS"]


def _histc(values: torch.Tensor, bins: int = 100, low: float = 0, high: float = 0) -> torch.Tensor:
    """Histograms of integers, which transformers' mixtures of experts ask of every device but the CPU."""
    if values.is_floating_point():
        return torch.histc(values, bins, low, high)
    return torch.histc(values.double(), bins, low, high).to(values.dtype)


KERNELS: Mapping[str, Callable[..., Any]] = MappingProxyType({"aten::histc": _histc})
"""By operation: what runs on the numbers instead of the CPU's kernel."""
