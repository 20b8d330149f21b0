"""Components that share the devices by turns: the one that is called is loaded, the one before it makes room.

A component that waits is as it was built: its weights are on meta, and its files have their bytes. When it is
called it is dispatched by its part of the plan, as any model is; before that the hooks, slots and weights of
the active one go. Switching reads the weights anew, from the system's cache where they are still in it.
"""

from __future__ import annotations

import functools
import threading
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from devmap.devices.registry import backend_for
from devmap.runtime.components import Components, entries_of, with_moved_parts
from devmap.runtime.dispatch import load_model
from devmap.runtime.inputs import Moves, first_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch import nn

    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan
    from devmap.runtime.handle import Handle
    from devmap.runtime.streaming.counters import Stats

__all__ = ["Turns", "take_turns"]


def take_turns(models: Components, plan: Plan, inventory: Inventory) -> Components:
    """Let components on meta be loaded one after another, as they are called.

    Args:
        models: as they were built; returned.
        plan: of all of them.
        inventory: with the files of all of them.
    """
    turns = Turns(models, plan, inventory)
    models.__dict__["devmap"] = turns
    for name, model in models.items():
        model.__dict__["devmap"] = turns
        _let_take_turns(model, name, turns)
    return models


class Turns:
    """The placement of components that take turns: `devmap` of each of them."""

    def __init__(self, models: Components, plan: Plan, inventory: Inventory) -> None:
        self.plan = plan
        self.active: str | None = None
        """The component that is loaded now; None before the first call."""
        self._models = models
        self._inventory = inventory
        self._handle: Handle | None = None
        self._lock = threading.RLock()
        self._moves = Moves()
        self._waiting = {name: tuple(_places(model)) for name, model in models.items()}
        self._classes = {name: type(model) for name, model in models.items()}

    def __repr__(self) -> str:
        """Return which component is loaded, of how many."""
        return f"<devmap: {self.active or 'none'} of {len(self._models)} components is loaded>"

    def stats(self) -> Stats | None:
        """Return the counters of the active component, since its turn began; None before the first call."""
        return None if self._handle is None else self._handle.stats()

    def device_of(self, name: str) -> torch.device:
        """Return where a component runs its first module, and takes inputs, whether it is loaded or not."""
        first = next(each for each in self.plan.placements if _is_below(each.path, name))
        return backend_for(first.executes_on).torch_device

    def activate(self, name: str) -> bool:
        """Load a component, after the active one has made room; False where it is loaded already.

        Raises:
            LoadError, OutOfMemoryError, StreamError: as loading does; no component is active then.
        """
        with self._lock:
            if self.active == name:
                return False
            self.release()
            part = Components({name: self._models[name]})
            plan = replace(
                self.plan, placements=tuple(p for p in self.plan.placements if _is_below(p.path, name))
            )
            try:
                load_model(part, plan, self._part(name))
                self._handle = part.__dict__.pop("devmap")
            finally:
                self._models[name].__dict__["devmap"] = self
            self.active = name
            return True

    def _part(self, name: str) -> Inventory:
        """Return the inventory of one component with its files; its names still begin with its own."""
        whole = self._inventory
        assert whole.mapping is not None
        mapping = replace(
            whole.mapping,
            unmapped=tuple(each for each in whole.mapping.unmapped if _is_below(each, name)),
            missing=tuple(each for each in whole.mapping.missing if _is_below(each, name)),
        )
        tensors = {path: tensor for path, tensor in whole.tensors.items() if _is_below(path, name)}
        return replace(whole, tensors=tensors, mapping=mapping)

    def release(self) -> None:
        """Take the active component off its devices; it waits in its files."""
        with self._lock:
            handle, name = self._handle, self.active
            if handle is None or name is None:
                return
            with handle.engine.exclusive() if handle.engine is not None else nullcontext():
                if handle.hooks is not None:
                    handle.hooks.remove()
                for table, key, tensor in self._waiting[name]:
                    table[key] = tensor
                if handle.engine is not None:
                    handle.engine.close()
            handle.hooks, handle.engine, handle.blocks = None, None, ()
            self._handle, self.active = None, None

    def remove(self) -> nn.Module:
        """Give the plain modules back, with all weights on the CPU, and end the turns.

        Raises:
            LoadError, StreamError: when weights cannot be read.
        """
        with self._lock:
            for name, model in self._models.items():
                self.activate(name)
                handle = self._handle
                assert handle is not None
                handle.remove()
                self._handle, self.active = None, None
                model.__class__ = self._classes[name]
                model.__dict__.pop("devmap", None)
                model.to("cpu")
        self._models.__dict__.pop("devmap", None)
        return self._models

    def called(self, name: str, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a component, or a method of it; it is loaded for that, and its inputs brought to it."""
        self.activate(name)
        handle = self._handle
        if handle is None or handle.hooks is not None:  # hooks bring inputs themselves
            return call(*args, **kwargs)
        device, came_from = self.device_of(name), first_device(args, kwargs)
        args, kwargs = self._moves.arguments(device, args, kwargs) or (args, kwargs)
        output = call(*args, **kwargs)
        if came_from is None:
            return output
        return with_moved_parts(self._moves.output(output, came_from), came_from)


def _is_below(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _places(model: nn.Module) -> Iterator[tuple[dict[str, torch.Tensor | None], str, torch.Tensor]]:
    """Yield each tensor with its place, as the model was built."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):  # noqa: SLF001 - torch offers no public way
            for key, tensor in table.items():
                if tensor is not None:
                    yield table, key, tensor  # type: ignore[misc]  # of parameters or of buffers


def _let_take_turns(model: nn.Module, name: str, turns: Turns) -> None:
    """Give a model a class of its own in which each way into it begins its turn.

    A class, since torch and the hooks of the turn itself use the places of an instance.
    """
    own = type(model)

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG001 - the turns have it
        return turns.called(name, functools.partial(own.__call__, model), args, kwargs)

    def entry(method: str) -> Callable[..., Any]:
        plain = getattr(own, method)

        @functools.wraps(plain)
        def run(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if turns.activate(name) and method in self.__dict__:  # what the hooks of its turn put there
                return self.__dict__[method](*args, **kwargs)
            return turns.called(name, functools.partial(plain, self), args, kwargs)

        return run

    ways: Mapping[str, Any] = {
        "__call__": call,
        "device": property(lambda _: turns.device_of(name)),
        **{method: entry(method) for method in (*entries_of(model), *_generates(model))},
    }
    model.__class__ = type(own.__name__, (own,), {**ways, "__module__": own.__module__})


def _generates(model: nn.Module) -> tuple[str, ...]:
    return ("generate",) if callable(getattr(model, "generate", None)) else ()
