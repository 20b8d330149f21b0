"""Moving inputs where the executing device changes: once for each tensor and device in a pass."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import PackedSequence

from devmap.runtime.call_guard import Passes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["CACHES", "Moves", "first_device"]

CACHES = frozenset({"past_key_values", "past_key_value", "layer_past", "cache_params", "past_buckets_states"})
"""Keywords of caches that a model changes in place: moving one would give the caller's copy no update."""


@dataclass(eq=False)
class Moves:
    """Moves tensors in nested arguments; remembers, while a pass runs, what it has moved.

    Masks and position embeddings are given to every block: with the memory they cross to a device once a
    pass. Only tensors in tuples, lists, dicts and model outputs move. Other objects, such as KV caches, stay
    what they are.
    """

    caches: Collection[str] = CACHES
    passes: Passes = field(default_factory=Passes)
    """Each call of the model remembers for itself, in its thread."""

    def arguments(
        self, device: torch.device, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return the arguments on a device; None where all are there."""
        new_args = tuple(self._one(value, device, remember=index > 0) for index, value in enumerate(args))
        new_kwargs = self._mapping(kwargs, device)
        if new_kwargs is kwargs and all(new is old for new, old in zip(new_args, args, strict=True)):
            return None
        return new_args, new_kwargs

    def output(self, value: Any, device: torch.device) -> Any:
        """Return a module's output on a device."""
        return self._one(value, device, remember=False)

    def _one(self, value: Any, device: torch.device, *, remember: bool = True) -> Any:
        if isinstance(value, torch.Tensor):
            return value if value.device == device else self._tensor(value, device, remember=remember)
        if type(value) is tuple or type(value) is list:
            moved = [self._one(item, device, remember=remember) for item in value]
            return (
                value
                if all(new is old for new, old in zip(moved, value, strict=True))
                else type(value)(moved)
            )
        if isinstance(value, dict):
            return self._mapping(value, device)
        if isinstance(value, PackedSequence):
            # torch's stub leaves out that it takes what Tensor.to takes
            return value.to(device)  # type: ignore[arg-type]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(self._one(item, device, remember=remember) for item in value))
        return value

    def _mapping(self, values: dict[str, Any], device: torch.device) -> dict[str, Any]:
        changed = {}
        for key, value in values.items():
            moved = value if key in self.caches else self._one(value, device)
            if moved is not value:
                changed[key] = moved
        if not changed:
            return values
        if type(values) is dict:
            return {**values, **changed}
        if isinstance(
            values, OrderedDict
        ):  # transformers' model outputs, whose attributes follow their items
            result = copy.copy(values)
            for key, value in changed.items():
                result[key] = value
            return result
        return values

    def _tensor(self, tensor: torch.Tensor, device: torch.device, *, remember: bool) -> torch.Tensor:
        current = self.passes.current
        if not remember or current is None or tensor.is_inference():
            return tensor.to(device)
        known = current.moved.get((id(tensor), device))
        # Torch's counter of writes.
        if known is not None and known[0] is tensor and known[1] == tensor._version:  # noqa: SLF001
            return known[2]
        moved = tensor.to(device)
        current.moved[id(tensor), device] = (tensor, tensor._version, moved)  # noqa: SLF001 - as above
        return moved


def first_device(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device | None:
    """Return the device of a call's first tensor: direct arguments before nested ones.

    None where there is no tensor.
    """
    values = [*args, *kwargs.values()]
    for value in values:
        if isinstance(value, torch.Tensor):
            return value.device
    for value in values:
        nested = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        )
        found = first_device(tuple(nested), {})
        if found is not None:
            return found
    return None
