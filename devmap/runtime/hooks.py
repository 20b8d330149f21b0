"""The hooks of a dispatched model.

One where the executing device changes, one around each streamed block, two on the root.

A model that is wholly on one device gets none of them.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from devmap.errors import UsageError
from devmap.runtime.alignment import Depth, align_operands, generate_on
from devmap.runtime.call_guard import Pass, Passes, guard
from devmap.runtime.components import entries_of, with_moved_parts
from devmap.runtime.inputs import CACHES, Moves, first_device
from devmap.runtime.streaming.streamed_weight import StreamedWeight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import torch
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from devmap.runtime.streaming.engine import Engine
    from devmap.runtime.streaming.streamed_block import StreamedBlock

__all__ = ["Hooks", "install"]

_PLAIN_FIRST = "call model.devmap.remove() first: it gives the plain module back"


@dataclass(eq=False)
class Hooks:
    """What was put on a model, to be taken off again."""

    handles: list[RemovableHandle] = field(default_factory=list)
    attributes: list[tuple[nn.Module, str]] = field(default_factory=list)

    def remove(self) -> None:
        """Take everything off."""
        for handle in self.handles:
            handle.remove()
        for module, name in self.attributes:
            module.__dict__.pop(name, None)
        self.handles.clear()
        self.attributes.clear()


def install(
    model: nn.Module,
    engine: Engine,
    *,
    blocks: Mapping[str, StreamedBlock],
    regions: Mapping[str, torch.device],
    spanning: Mapping[str, torch.device],
    executes: Mapping[str, torch.device],
    values: Mapping[str, Callable[[], torch.Tensor]],
) -> Hooks:
    """Hook a model whose tensors are in place.

    `blocks`, `regions` and `spanning` are by module path, as are the devices in `executes`, of every
    placement of the plan; `values` gives the true value of each streamed weight on the CPU.
    """
    modules = dict(model.named_modules())
    hooks = Hooks()
    passes = Passes()
    moves = Moves(CACHES | set(getattr(model, "_skip_keys_device_placement", None) or ()), passes)
    _hook_root(model, engine, moves, passes, hooks)
    _hook_entries(model, engine, moves, passes, hooks)
    for path, device in {**spanning, **regions}.items():
        hooks.handles.append(modules[path].register_forward_pre_hook(_mover(moves, device), with_kwargs=True))
    for path, block in blocks.items():
        hooks.handles.append(modules[path].register_forward_pre_hook(_bringer(engine, block)))
        hooks.handles.append(modules[path].register_forward_hook(_releaser(engine, block), always_call=True))
    for module in modules.values():
        if any(_streamed(module)):
            # The one hook that may replace values.
            hooks.handles.append(module._register_state_dict_hook(_true_values(values)))  # noqa: SLF001
    if values:
        for path in {"", *blocks}:
            modules[path].__dict__["_call_impl"] = guard(modules[path], engine, passes)
            hooks.attributes.append((modules[path], "_call_impl"))
        hooks.handles.append(model.register_load_state_dict_pre_hook(_no_state))  # type: ignore[no-untyped-call]
    depth = Depth()
    hooks.attributes += align_operands(modules, spanning, regions, depth)
    hooks.attributes += generate_on(model, next(model.parameters()).device, depth if spanning else None)
    _refuse(model, modules, [*regions, *blocks], hooks, streams=bool(values))
    _tell(model, executes, hooks)
    return hooks


def _hook_root(model: nn.Module, engine: Engine, moves: Moves, passes: Passes, hooks: Hooks) -> None:
    """Outputs go back to the device that the first input came from, as callers and `generate` expect."""

    # Torch's signature.
    def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:  # noqa: ARG001
        engine.read_ahead()
        passes.begin(Pass(time.perf_counter(), first_device(args, kwargs or {})))

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:  # noqa: ARG001 - torch's signature
        ended = passes.end()
        if ended is None or output is None:  # None is also how torch calls this hook when the forward raised
            return None
        engine.counters.end_pass(time.perf_counter() - ended.started)
        return output if ended.device is None else moves.output(output, ended.device)

    hooks.handles.append(model.register_forward_pre_hook(begin, prepend=True, with_kwargs=True))
    hooks.handles.append(model.register_forward_hook(end, always_call=True))


def _hook_entries(model: nn.Module, engine: Engine, moves: Moves, passes: Passes, hooks: Hooks) -> None:
    """Let a call of `encode` or `decode` be a pass as one of the forward is: inputs move, outputs go back."""
    device = next(model.parameters()).device

    def entry(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            came_from = first_device(args, kwargs)
            engine.read_ahead()
            passes.begin(Pass(time.perf_counter(), came_from))
            depth = passes.depth
            try:
                args, kwargs = moves.arguments(device, args, kwargs) or (args, kwargs)
                output = call(*args, **kwargs)
                if came_from is not None:
                    output = with_moved_parts(moves.output(output, came_from), came_from)
            finally:
                passes.unwind(depth)
                ended = passes.end()
            if ended is not None:
                engine.counters.end_pass(time.perf_counter() - ended.started)
            return output

        return run

    for name in entries_of(model):
        model.__dict__[name] = entry(getattr(model, name))
        hooks.attributes.append((model, name))


def _mover(moves: Moves, device: torch.device) -> Callable[..., Any]:
    def move(
        module: nn.Module,  # noqa: ARG001
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if kwargs is None:  # torch leaves them out while another thread takes this hook off
            return None
        return moves.arguments(device, args, kwargs)

    return move


def _bringer(engine: Engine, block: StreamedBlock) -> Callable[..., None]:
    def bring(module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001 - torch's signature
        engine.enter(block)

    return bring


def _releaser(engine: Engine, block: StreamedBlock) -> Callable[..., None]:
    # Torch's signature.
    def release(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
        engine.leave(
            block, failed=output is None
        )  # None is also how torch calls this hook when the forward raised

    return release


def _true_values(values: Mapping[str, Callable[[], torch.Tensor]]) -> Callable[..., None]:
    # Torch's signature.
    def fill(module: nn.Module, state: dict[str, Any], prefix: str, metadata: object) -> None:  # noqa: ARG001
        # The tensors directly on this module.
        for key in (*module._parameters, *module._buffers):  # noqa: SLF001
            found = state.get(prefix + key)
            if isinstance(found, StreamedWeight):
                state[prefix + key] = values[found.weight_name]()

    return fill


def _streamed(module: nn.Module) -> Iterator[str]:
    """Yield the names of the streamed weights directly on a module."""
    for table in (module._parameters, module._buffers):  # noqa: SLF001 - without a copy
        yield from (key for key, tensor in table.items() if isinstance(tensor, StreamedWeight))


def _no_state(module: nn.Module, state: Mapping[str, object], prefix: str, *_: object) -> None:
    """Refuse a state dict that holds a streamed weight, before any of it is loaded.

    One of an adapter on top may be.
    """
    for path, part in module.named_modules(prefix=prefix.removesuffix(".")):
        for key in _streamed(part):
            name = f"{path}.{key}" if path else key
            if name in state:
                raise UsageError(
                    f"a state dict with '{name}' cannot be loaded: this weight is streamed", help=_PLAIN_FIRST
                )


def _refuse(
    model: nn.Module, modules: Mapping[str, nn.Module], hooked: Iterable[str], hooks: Hooks, *, streams: bool
) -> None:
    """Let what would break the placement raise.

    `.to()` and its like everywhere, copies and pickles of a streamed model.
    """

    def no_move(*_: object, **__: object) -> None:
        raise UsageError(
            "this model is placed on several devices by devmap; it cannot be moved or converted as a whole",
            help=_PLAIN_FIRST,
        )

    def no_copy(*_: object, **__: object) -> None:
        raise UsageError(
            "a model with streamed weights cannot be copied or pickled",
            help=f"save it with save_pretrained(), or {_PLAIN_FIRST}",
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
        hooks.attributes.append((module, name))


def _tell(model: nn.Module, executes: Mapping[str, torch.device], hooks: Hooks) -> None:
    """Say where the model executes, as `hf_device_map`.

    At that name Transformers' Trainer and pipelines, Accelerate and PEFT look, and leave the model alone.

    Devices, not the words `cpu` and `disk`: those would say that Accelerate's own hooks are there to be
    taken off. Transformers expects Accelerate to be installed where it finds this attribute.
    """
    if find_spec("accelerate") is not None and "hf_device_map" not in model.__dict__:
        model.__dict__["hf_device_map"] = dict(executes)
        hooks.attributes.append((model, "hf_device_map"))
