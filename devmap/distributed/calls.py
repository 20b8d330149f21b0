"""Calls of a model's parts: run on the rank of their stage, stood for on the others.

The first call of a part with arguments of some shapes tells the other ranks what it gives: shapes and dtypes,
which results are arguments handed through, and what it wrote into caches. The second call, when the caches
have grown, tells it again: it shows whether the results grow with them, as the position biases of T5 do.
Later calls exchange nothing but the tensors that are needed.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from devmap.distributed.caches import CacheCall, cache_calls, caches_in, flags_of, lengths_of, replay
from devmap.distributed.values import Remote, borders_of_thread, remote_of, swapped
from devmap.errors import DevmapError, UsageError
from devmap.runtime.inputs import CACHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devmap.distributed.parts import Part
    from devmap.distributed.values import Borders

__all__ = ["Arguments", "Given", "New", "PartCall", "PartCalls", "Recorded"]

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)


_Key = tuple[tuple[Any, ...], tuple[int, ...]]
"""What arguments are alike, and how much the caches among them hold."""


@dataclass(frozen=True)
class New:
    """A result that the part made."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Given:
    """A result that is an argument: a tensor, a cache or another object, by its place among them."""

    index: int


@dataclass(frozen=True)
class Recorded:
    """What a part gives for arguments of one kind."""

    output: Any
    """The part's output, with `New` and `Given` in the places of tensors and objects."""
    filled: tuple[tuple[int, Any, Any], ...]
    """Entries that the part put into dicts it was given: which dict, the key, the value as in `output`."""
    caches: tuple[CacheCall, ...]
    written: tuple[int, ...] = ()
    """The tensors of outer code's own that the part wrote into, by their places among the arguments."""


@dataclass(frozen=True)
class PartCall:
    """A call of a part in a recorded pass."""

    part: Part
    recorded: Recorded
    label: int
    """Of the first of its new results; the others follow."""


@dataclass(eq=False, slots=True)
class _Known:
    """What was recorded for arguments of one kind, by how much the caches held."""

    by_length: dict[tuple[int, ...], Recorded]
    at_any: Recorded | None = None
    """What was recorded, where it was the same for caches of two lengths."""

    def add(self, lengths: tuple[int, ...], recorded: Recorded) -> None:
        """Add what was told."""
        if len(self.by_length) == 1 and recorded in self.by_length.values():
            self.at_any = recorded
        self.by_length[lengths] = recorded


@dataclass(frozen=True)
class _Failed:
    """A part raised in its first call."""

    message: str


@dataclass(eq=False)
class PartCalls:
    """The calls of all parts of a model, on this rank."""

    usual: Borders
    parts: Sequence[Part]
    computing: threading.RLock = field(default_factory=threading.RLock)
    """Held while a part runs here: microbatches take turns on the stage's device and its streamed blocks."""
    trace: list[PartCall] | None = None
    """While a pass is recorded, its calls in order."""
    instead: Callable[[Part, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] | None = None
    """What runs or stands for parts while a stage is trained."""

    _recorded: dict[Borders, dict[tuple[Any, ...], _Known]] = field(default_factory=dict)

    @property
    def borders(self) -> Borders:
        """What this thread's microbatch crosses."""
        return borders_of_thread(self.usual)

    @property
    def recorded(self) -> dict[tuple[Any, ...], _Known]:
        """What is known of the parts on these borders: each learns alone, in the order of its own calls."""
        return self._recorded.setdefault(self.borders, {})

    def install(self) -> list[tuple[torch.nn.Module, str]]:
        """Stand where torch calls the parts and their hooks; return the attributes that were set."""
        changed = []
        for number, part in enumerate(self.parts):
            inner = part.module._call_impl  # noqa: SLF001 - where torch calls hooks and forward
            part.module.__dict__["_call_impl"] = self._caller(number, part, inner)
            changed.append((part.module, "_call_impl"))
        return changed

    def _caller(self, number: int, part: Part, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.instead is not None:
                return self.instead(part, inner, args, kwargs)
            if part.module.training and part.stage == self.borders.wire.rank:
                return inner(*args, **kwargs)  # activations that are computed again in a backward pass
            _refuse_collecting(part)
            given = Arguments(args, kwargs)
            kind = (number, *given.signature(part.layers))
            for remote in given.remotes():
                self.borders.need(remote.value, 1 << part.stage)
            all_known = self.recorded.get(kind)
            known: Recorded | None = None if all_known is None else all_known.at_any
            lengths: tuple[int, ...] = ()
            if known is None:
                lengths = lengths_of(given.caches)
                known = None if all_known is None else all_known.by_length.get(lengths)
            key = None if known is not None else (kind, lengths)
            first = self.borders.labels
            if part.stage != self.borders.wire.rank:
                output = self._stand_for(part, given, key, known)
            else:
                output = self._run(part, inner, given, key, known)
            if self.trace is not None:
                told = known if known is not None else self.recorded[kind].by_length[lengths]
                self.trace.append(PartCall(part, told, first))
            return output

        return call

    def _stand_for(self, part: Part, given: Arguments, key: _Key | None, known: Recorded | None) -> Any:
        if known is None:
            assert key is not None
            told, theirs = self.borders.wire.from_one(None, part.stage)
            if isinstance(told, _Failed):
                raise UsageError(f"rank {part.stage}, '{part.path}': {told.message}")
            if theirs != key:
                raise UsageError(
                    f"ranks {self.borders.wire.rank} and {part.stage} call '{part.path}' with different "
                    "arguments",
                    help="call the model with the same arguments on every rank",
                )
            known = self._learn(key, told)
        if known.caches:
            why = f"the cache of '{part.path}', which is on stage {part.stage}"
            replay(known.caches, given.caches, self.borders, why, part.stage)

        def made(each: Any) -> Any:
            if isinstance(each, New):
                return self.borders.held_by(part.stage, each.shape, each.dtype)
            return given.objects[each.index]

        for place, name, value in known.filled:
            given.objects[place][name] = swapped(value, _is_recorded, made)
        for place in known.written:
            own = given.objects[place]
            own.copy_(self.borders.wire.receive(own.shape, own.dtype, part.stage))
        return swapped(known.output, _is_recorded, made)

    def _learn(self, key: _Key, told: Recorded) -> Recorded:
        kind, lengths = key
        self.recorded.setdefault(kind, _Known({})).add(lengths, told)
        return told

    def _run(
        self,
        part: Part,
        inner: Callable[..., Any],
        given: Arguments,
        key: _Key | None,
        known: Recorded | None,
    ) -> Any:
        calls: list[CacheCall] = []
        try:
            _refuse_cache(part, given)
            with self.computing, given.real():
                before = {id(each): _writes(each) for each in given.real_tensors}
                before_own = given.writes()
                if known is None:
                    with cache_calls(given.caches) as calls:
                        output = inner(*given.real_args, **given.real_kwargs)
                else:
                    output = inner(*given.real_args, **given.real_kwargs)
                _refuse_written(part, given.real_tensors, before)
            found = self._wrapped(part, output, given)
            filled = tuple(given.filled(lambda each: self._wrapped(part, each, given)))
            now = Recorded(
                _shapes(found, given),
                tuple((*at, _shapes(value, given)) for *at, value in filled),
                tuple(calls),
                tuple(place for place, writes in given.writes().items() if writes != before_own[place]),
            )
            _refuse_unknown(part, now)
        except Exception as error:
            if known is None:
                text = error.message if isinstance(error, DevmapError) else f"{type(error).__name__}: {error}"
                self.borders.wire.from_one((_Failed(text), None), part.stage)
            raise
        if known is None:
            assert key is not None
            self.borders.wire.from_one((now, key), part.stage)
            self._learn(key, now)
        elif (
            now.output != known.output or now.filled != known.filled or set(now.written) - set(known.written)
        ):
            raise UsageError(
                f"'{part.path}' gives other shapes than before for arguments of the same shapes, so that "
                "other ranks cannot know them",
                help="run this model on one machine",
            )
        others = self.borders.ranks(self.borders.all & ~self.borders.me)
        for place in (known or now).written:
            self.borders.wire.send(given.objects[place].clone(), others)
        return found

    def _wrapped(self, part: Part, output: Any, given: Arguments) -> Any:
        """Return the output with each tensor as a remote; one that was handed through as it was given."""

        def wrap(tensor: torch.Tensor) -> torch.Tensor:
            known = given.by_real.get(id(tensor))
            if known is not None:
                return known
            if any(tensor is each for each in given.objects):
                return tensor
            # As the others get it, so that outer code finds the same strides on every rank.
            return self.borders.held_by(part.stage, tensor.shape, tensor.dtype, tensor.contiguous())

        return swapped(output, lambda each: isinstance(each, torch.Tensor) and not remote_of(each), wrap)


class Arguments:
    """The arguments of one call: as outer code gave them, and as the part gets them."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.args = args
        self.kwargs = kwargs
        self.caches: list[Any] = []
        """Those of Transformers among the arguments, each once."""
        self.objects: list[Any] = []
        """Tensors, dicts that the part may fill, and objects that it may hand through, in order."""
        self._signature: list[Any] = []
        self._dicts: list[int] = []
        for each in args:
            self._look(each)
        for name, each in kwargs.items():
            self._signature.append(name)
            self._look(each)
        self.by_real: dict[int, Remote] = {}
        self.real_tensors: list[torch.Tensor] = []
        self._before: dict[int, dict[Any, tuple[Any, Any]]] = {}

    def _look(self, obj: Any) -> None:
        if isinstance(obj, torch.Tensor):
            self._signature.append((tuple(obj.shape), obj.dtype))
            self.objects.append(obj)
        elif isinstance(obj, _PLAIN):
            self._signature.append(obj)
        elif isinstance(obj, tuple | list):
            self._signature.append(len(obj))
            for item in obj:
                self._look(item)
        elif isinstance(obj, MutableMapping):
            if not hasattr(obj, "to_tuple"):  # a model output is made anew, not filled
                self._dicts.append(len(self.objects))
            self.objects.append(obj)
            self._signature.append(tuple(map(str, obj)))
            for value in obj.values():
                self._look(value)
        else:
            self._signature.append(type(obj).__qualname__)
            found = [each for each in caches_in(obj) if all(each is not known for known in self.caches)]
            self.caches += found
            self.objects += found or [obj]

    def signature(self, layers: Sequence[int]) -> tuple[Any, ...]:
        """Return what decides the shapes of the results, the same on all ranks."""
        return (*self._signature, *(flags_of(each, layers) for each in self.caches))

    def remotes(self) -> list[Remote]:
        """Return the remotes among the arguments."""
        return [each for each in self.objects if isinstance(each, Remote)]

    @contextmanager
    def real(self) -> Iterator[None]:
        """Make `real_args` and `real_kwargs`; dicts hold the tensors themselves meanwhile."""
        for index in self._dicts:
            held = self.objects[index]
            table = self._before[index] = {}
            for name, value in list(held.items()):
                real = swapped(value, remote_of, self._take)
                table[name] = (value, real)
                held[name] = real
        dicts = {id(self.objects[index]) for index in self._dicts}

        def wanted(each: Any) -> bool:
            return id(each) in dicts or isinstance(each, Remote)

        def swap(each: Any) -> Any:
            return self._take(each) if isinstance(each, Remote) else each

        self.real_args = swapped(self.args, wanted, swap)
        self.real_kwargs = {name: swapped(each, wanted, swap) for name, each in self.kwargs.items()}
        yield

    def writes(self) -> dict[int, int]:
        """Return how often each tensor of outer code's own was written into, by its place."""
        return {
            place: _writes(each)
            for place, each in enumerate(self.objects)
            if isinstance(each, torch.Tensor) and not isinstance(each, Remote)
        }

    def _take(self, remote: Remote) -> torch.Tensor:
        real = remote.value.real
        assert real is not None
        self.by_real[id(real)] = remote
        self.real_tensors.append(real)
        return real

    def filled(self, wrap: Callable[[Any], Any]) -> list[tuple[int, Any, Any]]:
        """Give the dicts back their remotes; return what the part put into them, wrapped."""
        found = []
        for index in self._dicts:
            held = self.objects[index]
            before = self._before[index]
            for name, value in list(held.items()):
                if name in before and before[name][1] is value:
                    held[name] = before[name][0]
                else:
                    held[name] = wrap(value)
                    found.append((index, name, held[name]))
        return found


def _is_recorded(obj: Any) -> bool:
    return isinstance(obj, New | Given)


def _shapes(found: Any, given: Arguments) -> Any:
    """Return a part's results with shapes in place of what was made, and places for what was given."""
    places = {id(each): index for index, each in enumerate(given.objects)}

    def wanted(each: Any) -> bool:
        return id(each) in places or isinstance(each, torch.Tensor)

    def shape(each: Any) -> Any:
        if id(each) in places:
            return Given(places[id(each)])
        return New(tuple(each.shape), each.dtype)

    return swapped(found, wanted, shape)


def _refuse_unknown(part: Part, recorded: Recorded) -> None:
    """Refuse results of kinds that other ranks could not be told.

    Raises:
        UsageError: naming the class.
    """

    def look(each: Any) -> None:
        if isinstance(each, dict):
            for value in each.values():
                look(value)
        elif isinstance(each, tuple | list):
            for value in each:
                look(value)
        elif not isinstance(each, (*_PLAIN, New, Given)):
            raise UsageError(
                f"'{part.path}' gives a {type(each).__name__}, which cannot be told to the other stages",
                help="run this model on one machine; or, where it is a cache, make it outside and pass it in",
            )

    look(recorded.output)
    for *_, value in recorded.filled:
        look(value)


@functools.cache
def _collector() -> Any:
    """Return where Transformers keeps what its hooks collect from blocks; None in versions without it."""
    try:
        return import_module("transformers.utils.output_capturing")._active_collector  # noqa: SLF001 - its one name
    except (ImportError, AttributeError):
        return None


def _refuse_collecting(part: Part) -> None:
    """Refuse a pass in which hooks collect what blocks give: each rank would collect of its own alone.

    Raises:
        UsageError: naming what is collected.
    """
    collector = _collector()
    collected = collector.get() if collector is not None else None
    if collected:
        names = " and ".join(str(name) for name in collected if not str(name).startswith("_"))
        raise UsageError(
            f"the model's own code collects {names} of blocks such as '{part.path}', which stay on their "
            "stages",
            help="run this model on one machine",
        )


def _refuse_cache(part: Part, given: Arguments) -> None:
    """Refuse a cache of a class of the model's own, which other ranks could not let grow.

    Raises:
        UsageError: naming the class.
    """
    for name, each in given.kwargs.items():
        known = each is None or isinstance(each, (torch.Tensor, tuple, list, bool)) or each in given.caches
        if name in CACHES and not known:
            raise UsageError(
                f"'{part.path}' keeps a {type(each).__name__}, a cache that only its own model knows",
                help="call the model with use_cache=False, or run it on one machine",
            )


def _refuse_written(part: Part, tensors: Sequence[torch.Tensor], before: Mapping[int, int]) -> None:
    """Refuse a part that wrote into its input: other stages may have that too, and would not see it.

    Raises:
        UsageError: naming the part.
    """
    if any(_writes(each) != before[id(each)] for each in tensors):
        raise UsageError(
            f"'{part.path}' writes into a tensor that it is given, which other stages may have too",
            help="run this model on one machine",
        )


def _writes(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch's counter of writes
