"""The caches of Transformers on ranks that do not run the layers which fill them.

Masks and positions are made from the cache's shapes, often those of its first layer. So each rank's cache has
all layers: those of other stages hold tensors that have a shape and no numbers. They grow by the cache's own
code, given the shapes that the owner's code gave it.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from devmap.distributed.values import Remote, Value, swapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devmap.distributed.values import Borders

__all__ = ["CacheCall", "cache_calls", "caches_in", "flags_of", "lengths_of", "replay"]

_METHODS = ("update", "update_conv_state", "update_recurrent_state", "update_indexer")
"""By which the code of a layer writes into a cache; `layer_idx` is among the arguments."""

_TWO = ("self_attention_cache", "cross_attention_cache")
"""What the cache of an encoder-decoder is made of."""

_HELD = ("keys", "values", "indexer_keys")
_HELD_BY_STATE = ("conv_states", "recurrent_states")


@dataclass(frozen=True)
class _Shape:
    """Stands for a tensor in recorded arguments."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class CacheCall:
    """One call of a part to one of its caches, the tensors among the arguments by shape."""

    cache: int
    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def layer(self) -> int:
        """The layer of the cache that is written."""
        position = 2 if self.method == "update" else 1
        found = self.kwargs.get("layer_idx")
        return int(self.args[position] if found is None else found)


def caches_in(obj: Any) -> tuple[Any, ...]:
    """Return an object that is a cache, with the two that an encoder-decoder's is made of; else nothing."""
    kind = _cache_class()
    if kind is None or not isinstance(obj, kind):
        return ()
    inner = (getattr(obj, name, None) for name in _TWO)
    return (obj, *(one for one in inner if isinstance(one, kind)))


@functools.cache
def _cache_class() -> Any:
    if find_spec("transformers") is None:
        return None
    return import_module("transformers.cache_utils").Cache


def flags_of(cache: Any, layers: Sequence[int]) -> tuple[Any, ...]:
    """Return what decides, besides the contents, how a part treats its layers of a cache: which are begun."""
    updated = getattr(cache, "is_updated", None)
    if isinstance(updated, dict):
        return tuple(updated.get(layer, False) for layer in layers or updated)
    held = getattr(cache, "layers", ())
    chosen = [held[layer] for layer in layers if layer < len(held)] if layers else held
    return tuple(
        (type(layer).__name__, getattr(layer, "is_initialized", None), *_begun(layer)) for layer in chosen
    )


def _begun(layer: Any) -> tuple[bool, ...]:
    """Return which states of a state-space layer have begun."""
    states = getattr(layer, "has_previous_state", None)
    return tuple(states.values()) if isinstance(states, dict) else ()


def lengths_of(caches: Sequence[Any]) -> tuple[int, ...]:
    """Return how many positions each cache holds; 0 for one that does not count them."""
    found = []
    for cache in caches:
        try:
            found.append(int(cache.get_seq_length()))
        except ValueError:  # of state-space layers alone
            found.append(0)
    return tuple(found)


@contextmanager
def cache_calls(caches: Sequence[Any]) -> Iterator[list[CacheCall]]:
    """Record what is called on caches meanwhile."""
    calls: list[CacheCall] = []
    before = [dict(each.is_updated) if _tells_updates(each) else None for each in caches]
    for index, cache in enumerate(caches):
        for method in _METHODS:
            if hasattr(cache, method):
                cache.__dict__[method] = _recorder(calls, index, method, getattr(cache, method))
    try:
        yield calls
    finally:
        for cache in caches:
            for method in _METHODS:
                cache.__dict__.pop(method, None)
    for index, (cache, known) in enumerate(zip(caches, before, strict=True)):
        if known is not None and cache.is_updated != known:
            changed = {key: value for key, value in cache.is_updated.items() if known.get(key) != value}
            calls.append(CacheCall(index, "is_updated", (), changed))


def _tells_updates(cache: Any) -> bool:
    return isinstance(getattr(cache, "is_updated", None), dict)


def _recorder(calls: list[CacheCall], index: int, method: str, call: Any) -> Any:
    def record(*args: Any, **kwargs: Any) -> Any:
        shapes = swapped((args, kwargs), _is_tensor, lambda each: _Shape(tuple(each.shape), each.dtype))
        calls.append(CacheCall(index, method, *shapes))
        return call(*args, **kwargs)

    return record


def _is_tensor(obj: Any) -> bool:
    return isinstance(obj, torch.Tensor)


def _is_shape(obj: Any) -> bool:
    return isinstance(obj, _Shape)


def replay(calls: Sequence[CacheCall], caches: Sequence[Any], borders: Borders, why: str, stage: int) -> None:
    """Let caches grow as the owner's did, by tensors without numbers; `why` is said where they are used."""
    for call in calls:
        cache = caches[call.cache]
        if call.method == "is_updated":
            cache.is_updated.update(call.kwargs)
            continue
        args, kwargs = swapped(
            (call.args, call.kwargs), _is_shape, lambda each: borders.lost(each.shape, each.dtype, why, stage)
        )
        layer = call.layer
        if call.method == "update" and layer < len(cache.layers) and _grow(cache.layers[layer], *args[:2]):
            continue
        getattr(cache, call.method)(*args, **kwargs)
        _disown(cache.layers[layer], borders, why, stage)


def _grow(layer: Any, keys: torch.Tensor, values: torch.Tensor) -> bool:
    """Do for a plain growing layer what its code would do, without a kernel; False for any other."""
    if type(layer).__name__ != "DynamicLayer" or not isinstance(layer.keys, Remote):
        return False
    for name, new in (("keys", keys), ("values", values)):
        held = getattr(layer, name)
        *before, length, width = held.shape
        shape = (*before, length + new.shape[-2], width)
        value = Value(shape, held.dtype, lost=held.value.lost, kept=held.value.kept)
        setattr(layer, name, Remote(value, held.borders, held.device))
    return True


def _disown(layer: Any, borders: Borders, why: str, stage: int) -> None:
    """Take the numbers out of what the cache's own code allocated: they are another stage's to keep."""
    for name in _HELD:
        held = getattr(layer, name, None)
        if isinstance(held, torch.Tensor) and not isinstance(held, Remote):
            setattr(layer, name, borders.lost(held.shape, held.dtype, why, stage))
    for name in _HELD_BY_STATE:
        states = getattr(layer, name, None)
        if isinstance(states, dict):
            for key, held in states.items():
                if isinstance(held, torch.Tensor) and not isinstance(held, Remote):
                    states[key] = borders.lost(held.shape, held.dtype, why, stage)
