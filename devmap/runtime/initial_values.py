"""Values that no checkpoint gives: buffers that a model computes, parameters that its own code initialises.

A model is built on the meta device. Some of it comes out real all the same (`torch.Tensor(n)` and
`torch.normal(size=...)` do not ask which device is set), holding whatever lay in memory; what the checkpoint
stores must not stay so. What it does not store has to be given a value by the model's own code.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

__all__ = [
    "empty_stored",
    "fill_computed_buffers",
    "initialise_missing",
    "parameters_to_meta",
    "replace_tensors",
    "twin_of",
]


def parameters_to_meta(model: nn.Module) -> None:
    """Forget the values of all parameters. One that hangs in several places stays one parameter."""
    empty_stored(model, {name for name, _ in model.named_parameters(remove_duplicate=False)})


def empty_stored(model: nn.Module, stored: Container[str]) -> None:
    """Forget the values of the tensors of these names, so that they are read whatever device they are on."""
    found: dict[int, torch.Tensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for table in (module._parameters, module._buffers):  # noqa: SLF001 - torch offers no public way
            for key, tensor in table.items():
                if tensor is not None and not tensor.is_meta and prefix + key in stored:
                    found[id(tensor)] = tensor
    if found:
        replace_tensors(model, {identity: twin_of(tensor, "meta") for identity, tensor in found.items()})


def twin_of(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """Another tensor of that kind and shape on a device, without values."""
    made: torch.Tensor = torch.empty_like(tensor, device=device, requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        made = nn.Parameter(made, requires_grad=tensor.requires_grad)
    made.__dict__.update(tensor.__dict__)
    return made


def replace_tensors(model: nn.Module, twins: Mapping[int, torch.Tensor]) -> None:
    """Put each twin wherever the tensor of that identity hangs: ties stay ties."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):  # noqa: SLF001 - torch offers no public way
            for key, tensor in table.items():
                if id(tensor) in twins:
                    table[key] = twins[id(tensor)]  # type: ignore[assignment]  # a parameter for a parameter


def fill_computed_buffers(model: nn.Module) -> None:
    """Give the non-persistent buffers of a transformers model on meta their values, on the CPU.

    They are in no checkpoint. `from_pretrained` lets the model's own `_init_weights` compute them after all
    loaded tensors have been marked as initialised; this does the same, with everything that a checkpoint
    gives marked.
    """
    _mark_all(model)
    for module in model.modules():
        for key in module._non_persistent_buffers_set:  # noqa: SLF001 - torch offers no public way to ask
            buffer = module._buffers.get(key)  # noqa: SLF001 - as above
            if buffer is not None and buffer.is_meta:
                module._buffers[key] = torch.empty_like(buffer, device="cpu")  # noqa: SLF001 - as above
    _initialise(model)


def initialise_missing(model: nn.Module, missing: Iterable[str]) -> tuple[str, ...]:
    """Let a transformers model's own code give values to tensors that its checkpoint does not have.

    They are made on the CPU. Those of them that the class itself expects to be absent, such as position
    tables that it computes, are left out of the result: the names to tell the user.
    """
    model_tensors: dict[str, torch.Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    names = [name for name in missing if model_tensors[name].is_meta]
    if not names or not hasattr(model, "initialize_weights"):
        return ()
    _mark_all(model)
    absent = {id(tensor): tensor for tensor in map(model_tensors.__getitem__, names)}
    twins = {identity: twin_of(tensor, "cpu") for identity, tensor in absent.items()}
    for twin in twins.values():
        del twin._is_hf_initialized  # type: ignore[attr-defined]  # noqa: SLF001 - its code is to fill it
    replace_tensors(model, twins)
    for module in model.modules():
        module.__dict__.pop("_is_hf_initialized", None)  # its code passes over a module that has the mark
    _initialise(model)
    expected = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    return tuple(name for name in names if not any(re.search(pattern, name) for pattern in expected))


def _mark_all(model: nn.Module) -> None:
    for tensor in (*model.parameters(), *model.buffers()):
        # The mark that transformers looks for.
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]  # noqa: SLF001


def _initialise(model: nn.Module) -> None:
    initialise = getattr(model, "initialize_weights", None)
    if initialise is not None:
        initialise()
