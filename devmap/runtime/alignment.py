"""Devices aligned where a module spans several: its inputs, and the operands of its own code.

What lies inside one device needs nothing of this. The code of a module whose parts execute on several devices
may put results of two parts together (a projected image beside embedded text), make positions on the device
of one input and use them with another's, or add a parameter of its own. Accelerate leaves that to the model's
code, which often was never tried so. Here each such operation has its operands brought to one device. Only
the code that stands directly in the forward of such a module pays for it, about a microsecond an operation;
inside each part it is switched off.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

__all__ = ["Depth", "align_operands", "generate_on"]

_MIXES = {torch.Tensor.to, torch.Tensor.copy_, torch.Tensor.type_as, torch.Tensor.is_set_to}
"""What takes tensors of several devices as it is."""


class _Alignment(TorchFunctionMode):
    """Brings the operands of each operation to one device."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        device = _target(func, args, kwargs)
        if device is None:
            return func(*args, **kwargs)
        return func(
            *[_moved(value, device) for value in args],
            **{key: _moved(value, device) for key, value in kwargs.items()},
        )


def _target(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device | None:
    """Return the device to bring all to; None where they are on one, or the operation takes several.

    That of the tensor which is written to; else of the first that is on no CPU.
    """
    first: torch.device | None = None
    target: torch.device | None = None
    mixed = False
    for tensor in _tensors((*args, *kwargs.values())):
        device = tensor.device
        if first is None:
            first = device
        if device != first:
            # torch takes a number on the CPU beside tensors on a device; not one on a device beside those of
            # the CPU.
            mixed = mixed or tensor.dim() > 0 or device.type != "cpu"
        if target is None and device.type != "cpu":
            target = device
    if not mixed or func in _MIXES:
        return None
    name = getattr(func, "__name__", "")
    writes = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return first if writes else target


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) is list or type(value) is tuple:
            yield from _tensors(value)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value if value.device == device else value.to(device)
    if type(value) is list or type(value) is tuple:
        return type(value)(_moved(item, device) for item in value)
    return value


class Depth(threading.local):
    """Whether a forward under alignment is under way in this thread, directly."""

    aligned: bool = False


def align_operands(
    modules: Mapping[str, nn.Module], spanning: Iterable[str], parts: Iterable[str], depth: Depth
) -> list[tuple[nn.Module, str]]:
    """Align in the forwards of the modules of `spanning`, and not in those of `parts`, by path.

    Returns the attributes that were set, as pairs of module and name.
    """
    changed = []
    for path, wrap in [*((path, _aligned) for path in spanning), *((path, _plain) for path in parts)]:
        module = modules[path]
        module.__dict__["forward"] = wrap(module.forward, depth)
        changed.append((module, "forward"))
    return changed


def _aligned(forward: Callable[..., Any], depth: Depth) -> Callable[..., Any]:
    mode = _Alignment()

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if depth.aligned or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        depth.aligned = True
        try:
            with mode:
                return forward(*args, **kwargs)
        finally:
            depth.aligned = False

    return run


def _plain(forward: Callable[..., Any], depth: Depth) -> Callable[..., Any]:
    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not depth.aligned or torch.compiler.is_compiling():
            return forward(*args, **kwargs)
        depth.aligned = False
        try:
            with _without_alignment():
                return forward(*args, **kwargs)
        finally:
            depth.aligned = True

    return run


class _without_alignment:  # noqa: N801 - a context manager, called like a function
    """Takes the mode off for a while, whatever others lie above it."""

    def __enter__(self) -> None:
        self._taken: list[TorchFunctionMode] = []
        while torch._C._len_torch_function_stack():  # noqa: SLF001 - torch has no public way
            mode = torch._C._pop_torch_function_stack()  # noqa: SLF001 - as above
            self._taken.append(mode)
            if isinstance(mode, _Alignment):
                break
        for mode in reversed(self._taken[:-1]):
            torch._C._push_on_torch_function_stack(mode)  # noqa: SLF001 - as above

    def __exit__(self, *_: object) -> None:
        above = self._taken[:-1]
        for _mode in above:
            torch._C._pop_torch_function_stack()  # noqa: SLF001 - as above
        for mode in reversed(self._taken):
            torch._C._push_on_torch_function_stack(mode)  # noqa: SLF001 - as above


def generate_on(model: nn.Module, device: torch.device, depth: Depth | None) -> list[tuple[nn.Module, str]]:
    """Let `model.generate` work on the device that the model says it is on.

    And give tokens back where they came from.

    It makes tokens and masks of its own there, and holds them against the caller's. Its own operations are
    aligned too, unless `depth` is None: some classes join what a forward gave with what they made. Returns as
    `align_operands`.
    """
    generate = getattr(model, "generate", None)
    if generate is None:
        return []
    own = generate if depth is None else _aligned(generate, depth)

    @functools.wraps(generate)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = next(_tensors((*args, *kwargs.values())), None)
        found = own(
            *[_moved(value, device) for value in args],
            **{key: _moved(value, device) for key, value in kwargs.items()},
        )
        return _moved(found, given.device) if given is not None else found

    model.__dict__["generate"] = run
    return [(model, "generate")]
