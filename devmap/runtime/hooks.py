"""The hooks of a dispatched model: one where the executing device changes, one around each streamed block, two on the root.

A model that is wholly on one device gets none of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from devmap.errors import UsageError
from devmap.runtime.guard import StreamedWeight
from devmap.runtime.inputs import CACHES, Moves, first_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from devmap.runtime.engine import Engine
    from devmap.runtime.units import Unit

__all__ = ["Hooks", "install"]

_PLAIN_FIRST = "call model.devmap.remove() first: it gives the plain module back"


@dataclass(eq=False)
class Hooks:
    """What was put on a model, to be taken off again."""

    handles: list[RemovableHandle] = field(default_factory=list)
    refusing: list[tuple[nn.Module, str]] = field(default_factory=list)

    def remove(self) -> None:
        """Take everything off."""
        for handle in self.handles:
            handle.remove()
        for module, name in self.refusing:
            module.__dict__.pop(name, None)
        self.handles.clear()
        self.refusing.clear()


def install(
    model: nn.Module,
    engine: Engine,
    *,
    units: Mapping[str, Unit],
    regions: Mapping[str, torch.device],
    values: Mapping[str, Callable[[], torch.Tensor]],
) -> Hooks:
    """Hook a model whose tensors are in place.

    `units` and `regions` are by module path; `values` gives the true value of each streamed weight on the CPU.
    """
    modules = dict(model.named_modules())
    hooks = Hooks()
    moves = Moves(CACHES | set(getattr(model, "_skip_keys_device_placement", None) or ()))
    _hook_root(model, engine, moves, hooks)
    for path, device in regions.items():
        hooks.handles.append(modules[path].register_forward_pre_hook(_mover(moves, device), with_kwargs=True))
    for path, unit in units.items():
        hooks.handles.append(modules[path].register_forward_pre_hook(_bringer(engine, unit)))
        hooks.handles.append(modules[path].register_forward_hook(_releaser(engine, unit), always_call=True))
    for module in modules.values():
        if any(isinstance(tensor, StreamedWeight) for tensor in (*module._parameters.values(), *module._buffers.values())):  # noqa: SLF001 - without a copy
            hooks.handles.append(module._register_state_dict_hook(_true_values(values)))  # noqa: SLF001 - the one hook that may replace values
    if values:
        hooks.handles.append(model.register_load_state_dict_pre_hook(_no_state))  # type: ignore[no-untyped-call]
    _refuse(model, modules, [*regions, *units], hooks, streams=bool(values))
    return hooks


def _hook_root(model: nn.Module, engine: Engine, moves: Moves, hooks: Hooks) -> None:
    """Outputs go back to the device that the first input came from, as callers and `generate` expect."""
    under_way: list[tuple[float, torch.device | None]] = []

    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001 - torch's signature
        moves.begin()
        engine.read_ahead()
        under_way.append((time.perf_counter(), first_device(args, kwargs)))

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG001 - torch's signature
        if not under_way:
            return None
        started, device = under_way.pop()
        moves.end()
        if output is None:  # also how torch calls this hook when the forward raised
            return None
        engine.counters.passes += 1
        engine.counters.last_pass_seconds = time.perf_counter() - started
        return output if device is None else moves.output(output, device)

    hooks.handles.append(model.register_forward_pre_hook(begin, prepend=True, with_kwargs=True))
    hooks.handles.append(model.register_forward_hook(end, always_call=True))


def _mover(moves: Moves, device: torch.device) -> Callable[..., Any]:
    def move(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:  # noqa: ARG001 - torch's signature
        return moves.arguments(device, args, kwargs)

    return move


def _bringer(engine: Engine, unit: Unit) -> Callable[..., None]:
    def bring(module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001 - torch's signature
        engine.enter(unit)

    return bring


def _releaser(engine: Engine, unit: Unit) -> Callable[..., None]:
    def release(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001 - torch's signature
        engine.leave(unit, failed=output is None)  # None is also how torch calls this hook when the forward raised

    return release


def _true_values(values: Mapping[str, Callable[[], torch.Tensor]]) -> Callable[..., None]:
    def fill(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:  # noqa: ARG001 - torch's signature
        for key in (*module._parameters, *module._buffers):  # noqa: SLF001 - the tensors directly on this module
            found = state.get(prefix + key)
            if isinstance(found, StreamedWeight):
                state[prefix + key] = values[found.weight_name]()

    return fill


def _no_state(*_: object) -> None:
    raise UsageError("a state dict cannot be loaded into a model with streamed weights", help=_PLAIN_FIRST)


def _refuse(model: nn.Module, modules: Mapping[str, nn.Module], hooked: Iterable[str], hooks: Hooks, *, streams: bool) -> None:
    """Let what would break the placement raise: `.to()` and its like everywhere, copies and pickles of a streamed model."""

    def no_move(*_: object, **__: object) -> None:
        raise UsageError("this model is placed on several devices by devmap; it cannot be moved or converted as a whole", help=_PLAIN_FIRST)

    def no_copy(*_: object, **__: object) -> None:
        raise UsageError(
            "a model with streamed weights cannot be copied or pickled", help=f"save it with save_pretrained(), or {_PLAIN_FIRST}"
        )

    paths = {""}
    for path in hooked:
        while path not in paths:
            paths.add(path)
            path = path.rpartition(".")[0]  # noqa: PLW2901 - walks up
    refusals = [(modules[path], "_apply", no_move) for path in paths]
    if streams:
        refusals += [(model, "__deepcopy__", no_copy), (model, "__reduce_ex__", no_copy)]
    for module, name, refusal in refusals:
        module.__dict__[name] = refusal
        hooks.refusing.append((module, name))
