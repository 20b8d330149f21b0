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


# Recurrent cells, which torch runs as one kernel on every device but the CPU. Gates stand side by side in the
# last dimension, each [batch, hidden]; a workspace keeps for the backward what the forward has worked out.


def _biased(gates: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return gates if bias is None else gates + bias


def _lstm_cell(
    of_input: torch.Tensor,
    of_hidden: torch.Tensor,
    cell: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the new hidden state, the new cell state, and the workspace: the four gates."""
    gates = _biased(of_input, input_bias) + _biased(of_hidden, hidden_bias)
    first, forget, new, out = gates.chunk(4, dim=-1)
    first, forget, new, out = first.sigmoid(), forget.sigmoid(), new.tanh(), out.sigmoid()
    cell = forget * cell + first * new
    return out * cell.tanh(), cell, torch.cat((first, forget, new, out), dim=-1)


def _lstm_cell_backward(
    of_state: torch.Tensor | None,
    of_cell: torch.Tensor | None,
    before: torch.Tensor,
    after: torch.Tensor,
    workspace: torch.Tensor,
    has_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return the gradients of the gates, of the cell state before, and of a bias."""
    first, forget, new, out = workspace.chunk(4, dim=-1)
    of_state = torch.zeros_like(after) if of_state is None else of_state
    flat = after.tanh()
    through = of_state * out * (1 - flat * flat) + (0 if of_cell is None else of_cell)
    gates = torch.cat(
        (
            through * new * first * (1 - first),
            through * before * forget * (1 - forget),
            through * first * (1 - new * new),
            of_state * flat * out * (1 - out),
        ),
        dim=-1,
    )
    return gates, through * forget, gates.sum(0) if has_bias else None


def _gru_cell(
    of_input: torch.Tensor,
    of_hidden: torch.Tensor,
    state: torch.Tensor,
    input_bias: torch.Tensor | None = None,
    hidden_bias: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the new hidden state and the workspace.

    It has three gates, the state before, and what the hidden state adds to the new gate.
    """
    reset_in, keep_in, new_in = _biased(of_input, input_bias).chunk(3, dim=-1)
    reset_at, keep_at, new_at = _biased(of_hidden, hidden_bias).chunk(3, dim=-1)
    reset, keep = (reset_in + reset_at).sigmoid(), (keep_in + keep_at).sigmoid()
    new = (new_in + reset * new_at).tanh()
    return new + keep * (state - new), torch.cat((reset, keep, new, state, new_at), dim=-1)


def _gru_cell_backward(
    of_state: torch.Tensor, workspace: torch.Tensor, has_bias: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Return the gradients of the gates of input and hidden state, of the state before, and of two biases."""
    reset, keep, new, state, new_at = workspace.chunk(5, dim=-1)
    of_new = of_state * (1 - keep) * (1 - new * new)
    of_keep = of_state * (state - new) * keep * (1 - keep)
    of_reset = of_new * new_at * reset * (1 - reset)
    of_input = torch.cat((of_reset, of_keep, of_new), dim=-1)
    of_hidden = torch.cat((of_reset, of_keep, of_new * reset), dim=-1)
    biases = (of_input.sum(0), of_hidden.sum(0)) if has_bias else (None, None)
    return of_input, of_hidden, of_state * keep, *biases


KERNELS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "aten::histc": _histc,
        "aten::_thnn_fused_lstm_cell": _lstm_cell,
        "aten::_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
        "aten::_thnn_fused_gru_cell": _gru_cell,
        "aten::_thnn_fused_gru_cell_backward": _gru_cell_backward,
    }
)
"""By operation: what runs on the numbers instead of the CPU's kernel."""
