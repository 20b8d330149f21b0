"""The parameters of bitsandbytes: packed numbers with a `QuantState`, and int8 with row scales."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FourBit", "Int8"]


@dataclass(frozen=True)
class FourBit:
    """A `Params4bit` over its packed numbers, scales and tables."""

    module: Any
    """The `Linear4bit` or `Embedding4bit`."""
    names: tuple[str, ...]
    keys: tuple[str, ...]
    """What bitsandbytes calls each part in a checkpoint, behind the weight's name; empty for the numbers."""
    settings: Mapping[str, Any]
    """What is no tensor: `quant_type`, `blocksize`, `dtype`, `shape`, and those of nested scales."""

    def assemble(self, parts: Mapping[str, torch.Tensor]) -> nn.Parameter:
        """Make the parameter; its `QuantState` looks at the parts where they lie."""
        numbers = parts[self.names[0]]
        stats = {key: parts[name] for name, key in zip(self.names[1:], self.keys[1:], strict=True)}
        # The mean of scales that are quantised too is a number among the settings of a stored weight, and a
        # tensor of one that is quantised while it is loaded: that one is put in once the state is made.
        offset = stats.pop("nested_offset", None)
        described: dict[str, Any] = {} if offset is None else {"nested_offset": 0.0}
        described |= {**stats, **self.settings}
        library = _bitsandbytes()
        made: Any
        if type(numbers) is torch.Tensor:
            made = library.nn.Params4bit.from_prequantized(
                data=numbers, quantized_stats=described, device=numbers.device
            )
        else:
            state = library.functional.QuantState.from_dict(described, numbers.device)
            made = _bare(numbers, quant_state=state, bnb_quantized=True, quant_storage=numbers.dtype)
        if offset is not None:
            made.quant_state.offset = offset
        return cast("nn.Parameter", made)

    def parts(self, parameter: Any) -> Mapping[str, torch.Tensor]:
        """Return the parts of a parameter; one that the CPU's kernels packed anew is brought back first."""
        state, numbers = parameter.quant_state, parameter.data
        if getattr(state, "packing_format_for_cpu", False):
            functional = _bitsandbytes().functional
            numbers, state = functional._convert_weight_packed_for_cpu_inverse(numbers, state)  # noqa: SLF001
        tensors = {"": numbers, "absmax": state.absmax, "quant_map": state.code}
        if state.nested:
            tensors |= {
                "nested_absmax": state.state2.absmax,
                "nested_quant_map": state.state2.code,
                "nested_offset": state.offset,
            }
        return {name: tensors[key] for name, key in zip(self.names, self.keys, strict=True)}

    def attach(self, parameter: Any) -> None:
        """Give the module the state that it falls back on."""
        self.module.quant_state = parameter.quant_state

    def detach(self) -> None:
        """Drop that state, which looks at a slot."""
        self.module.quant_state = None

    def stream(self, *, on: bool) -> None:
        """Keep the module to the kernels that take the stored layout, while its weight is streamed.

        Where the CPU has AVX-512 bfloat16, the module would pack its weight anew at its first forward, into
        memory of its own; of a streamed weight that is a second copy, which no budget has.
        """
        self.module.support_avx512bf16_for_cpu = not on and _bitsandbytes().nn.modules.has_avx512bf16()


@dataclass(frozen=True)
class Int8:
    """An `Int8Params` over its numbers and the scale of each row."""

    module: Any
    """The `Linear8bitLt`."""
    names: tuple[str, str]

    def assemble(self, parts: Mapping[str, torch.Tensor]) -> nn.Parameter:
        """Make the parameter over the parts where they lie."""
        numbers, scales = (parts[name] for name in self.names)
        if type(numbers) is torch.Tensor:
            made: nn.Parameter = _bitsandbytes().nn.Int8Params(
                numbers, requires_grad=False, has_fp16_weights=False, CB=numbers, SCB=scales
            )
            return made
        return _bare(numbers, CB=numbers, SCB=scales, has_fp16_weights=False)

    def parts(self, parameter: Any) -> Mapping[str, torch.Tensor]:
        """Return the parts; the module has the scales once it has run."""
        scales = parameter.SCB if parameter.SCB is not None else self.module.state.SCB
        return dict(zip(self.names, (parameter.data, scales), strict=True))

    def attach(self, parameter: Any) -> None:
        """Give the module's state the numbers and scales, as its first forward does."""
        if parameter.SCB is None:  # a forward has moved them from the parameter to the module
            parameter.CB, parameter.SCB = parameter.data, parameter.__dict__["_scales"]
        parameter.__dict__["_scales"] = parameter.SCB

    def detach(self) -> None:
        """Drop what the module's state keeps, which looks at a slot."""
        self.module.state.CB = self.module.state.SCB = None

    def stream(self, *, on: bool) -> None:
        """Do nothing: the module takes its numbers from the parameter at each forward."""


def _bare(numbers: torch.Tensor, **attributes: object) -> nn.Parameter:
    """Make a parameter of a device whose tensors have a class of their own.

    With what the library's class has.
    """
    made = nn.Parameter(numbers, requires_grad=False)
    made.__dict__.update(attributes)
    return made


def _bitsandbytes() -> Any:
    return import_module("bitsandbytes")
