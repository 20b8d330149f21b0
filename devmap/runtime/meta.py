"""A module built by a callable of the user's, its parameters on the meta device and its computed buffers real."""

from __future__ import annotations

import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["build_empty"]


def build_empty(factory: Callable[[], object]) -> object:
    """What the factory makes, without memory for what a checkpoint holds. The factory is called once.

    Each parameter is moved to meta when it is registered, which is before modules fill it: no page of it is touched. Under
    torch's meta device the buffers that no checkpoint holds (rotary frequencies, masks) would have no values; here they are
    computed, and the others are moved to meta at the end.
    """
    with _parameters_on_meta():
        made = factory()
    if isinstance(made, nn.Module):
        _saved_buffers_to_meta(made)
    return made


def _saved_buffers_to_meta(model: nn.Module) -> None:
    """A buffer under two names stays one tensor."""
    twins: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for key, buffer in module._buffers.items():  # noqa: SLF001 - torch has no public way to ask
            if buffer is not None and not buffer.is_meta and key not in module._non_persistent_buffers_set:  # noqa: SLF001 - as above
                if id(buffer) not in twins:
                    twins[id(buffer)] = buffer.to("meta")
                module._buffers[key] = twins[id(buffer)]  # noqa: SLF001 - as above


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Every parameter that a module registers goes to meta; one that is registered twice stays one parameter."""
    register = nn.Module.register_parameter
    twins: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is None or parameter.is_meta:
            return
        known = twins.get(id(parameter))
        if known is None or known[0]() is not parameter:
            twin = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
            known = twins[id(parameter)] = (weakref.ref(parameter), twin)
        module._parameters[name] = known[1]  # noqa: SLF001 - registering it would check it anew

    nn.Module.register_parameter = register_on_meta  # type: ignore[assignment, method-assign]  # for the time of one factory
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
