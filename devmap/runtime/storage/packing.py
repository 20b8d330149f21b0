"""Quantised weights whose module wants one parameter and whose bytes are several tensors.

A library keeps packed numbers, scales and tables in one parameter of a class of its own. Here these parts are
plain tensors, each with its place in a file and in a slab; the parameter is made over them where they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

__all__ = ["PackedParameter"]


class PackedParameter(Protocol):
    """How the parts of one quantised parameter make it, and what its module needs beside it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The parts, as the inventory names them."""

    def assemble(self, parts: Mapping[str, torch.Tensor]) -> nn.Parameter:
        """Make the parameter over its parts, by name, without a copy of their bytes."""

    def parts(self, parameter: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Return the parts of a parameter that `assemble` made, by name."""

    def attach(self, parameter: torch.Tensor) -> None:
        """Let the module use the parameter, which stands in its table now."""

    def detach(self) -> None:
        """Drop whatever the module keeps of the parameter beside its table."""

    def stream(self, *, on: bool) -> None:
        """Prepare the module for parameters that come and go, or for one that stays."""
