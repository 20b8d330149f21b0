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
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from devmap.distributed.caches import CacheCall, cache_calls, caches_in, flags_of, lengths_of, replay
from devmap.distributed.values import Remote, borders_of_thread, remote_of, swapped
from devmap.errors import DevmapError, UsageError
from devmap.runtime.inputs import CACHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from devmap.distributed.parts import Part
    from devmap.distributed.values import Borders

__all__ = ["Arguments", "Given", "New", "PartCall", "PartCalls", "Recorded"]

_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device)
_LEAVES = frozenset(_PLAIN)


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

    def recorded_on(self, borders: Borders) -> dict[tuple[Any, ...], _Known]:
        """Return what is known of the parts on borders: each learns alone, in the order of its own calls."""
        return self._recorded.setdefault(borders, {})

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
            borders = self.borders
            is_own = part.stage == borders.wire.rank
            if is_own and part.module.training:
                return inner(*args, **kwargs)  # activations that are computed again in a backward pass
            _refuse_collecting(part)
            given = Arguments(args, kwargs)
            kind = (number, *given.signature(part.layers))
            for each in given.objects:
                if isinstance(each, Remote):
                    borders.need(each.value, 1 << part.stage)
            all_known = self.recorded_on(borders).get(kind)
            known: Recorded | None = None if all_known is None else all_known.at_any
            lengths: tuple[int, ...] = ()
            if known is None:
                lengths = lengths_of(given.caches)
                known = None if all_known is None else all_known.by_length.get(lengths)
            first = borders.labels
            call_here = _Call(borders, part, given)
            if known is None:
                known, output = self._call_first(call_here, inner, is_own=is_own, key=(kind, lengths))
            elif is_own:
                output = self._run(call_here, inner, known)
            else:
                output = call_here.stand_for(known)
            if self.trace is not None:
                self.trace.append(PartCall(part, known, first))
            return output

        return call

    def _call_first(
        self, call: _Call, inner: Callable[..., Any], *, is_own: bool, key: _Key
    ) -> tuple[Recorded, Any]:
        """Make a call of a kind that is not known yet; return what it gives, as recorded and itself."""
        part, wire = call.part, call.borders.wire
        kind, lengths = key
        if is_own:
            known, output = self._run_first(call, inner, key)
        else:
            known, theirs = wire.from_one(None, part.stage)
            if isinstance(known, _Failed):
                raise UsageError(f"rank {part.stage}, '{part.path}': {known.message}")
            if theirs != key:
                raise UsageError(
                    f"ranks {wire.rank} and {part.stage} call '{part.path}' with different arguments",
                    help="call the model with the same arguments on every rank",
                )
            output = call.stand_for(known)
        self.recorded_on(call.borders).setdefault(kind, _Known({})).add(lengths, known)
        return known, output

    def _run_first(self, call: _Call, inner: Callable[..., Any], key: _Key) -> tuple[Recorded, Any]:
        """Run a part, and tell the other ranks what it gives, or that it raised."""
        part, given = call.part, call.given
        try:
            _refuse_cache(part, given)
            with self.computing, cache_calls(given.caches) as calls:
                output, written = call.run(inner)
            found = call.wrapped(output)
            filled = given.filled(call.wrapped)
            known = Recorded(
                _shapes(found, given),
                tuple((place, name, _shapes(value, given)) for place, name, value in filled),
                tuple(calls),
                written,
            )
            _refuse_unknown(part, known)
        except Exception as error:
            text = error.message if isinstance(error, DevmapError) else f"{type(error).__name__}: {error}"
            call.borders.wire.from_one((_Failed(text), None), part.stage)
            raise
        call.borders.wire.from_one((known, key), part.stage)
        call.hand_out(written)
        return known, found

    def _run(self, call: _Call, inner: Callable[..., Any], known: Recorded) -> Any:
        """Run a part whose results the other ranks know.

        Raises:
            UsageError: it gives other ones this time.
        """
        given = call.given
        with self.computing:
            output, written = call.run(inner)
        try:
            found = call.as_known(known.output, output)
            filled = given.filled(call.wrapped) if given.dicts else ()
            shapes = tuple((place, name, _shapes(value, given)) for place, name, value in filled)
            if shapes != known.filled or not set(written) <= set(known.written):
                raise _OtherShapeError  # noqa: TRY301 - as `as_known` raises it
        except _OtherShapeError:
            raise UsageError(
                f"'{call.part.path}' gives other shapes than before for arguments of the same shapes, so "
                "that other ranks cannot know them",
                help="run this model on one machine",
            ) from None
        call.hand_out(known.written)
        return found


class _OtherShapeError(Exception):
    """A part gives something else than was recorded of it."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a part, on one rank."""

    borders: Borders
    part: Part
    given: Arguments

    def stand_for(self, known: Recorded) -> Any:
        """Do what the part does, without its numbers, and return what it gives."""
        given, stage = self.given, self.part.stage
        if known.caches:
            why = f"the cache of '{self.part.path}', which is on stage {stage}"
            replay(known.caches, given.caches, self.borders, why, stage)
        output = swapped(known.output, _is_recorded, self._made)
        for place, name, value in known.filled:
            given.objects[place][name] = swapped(value, _is_recorded, self._made)
        for place in known.written:
            own = given.objects[place]
            own.copy_(self.borders.wire.receive(own.shape, own.dtype, stage))
        return output

    def _made(self, each: New | Given) -> Any:
        if isinstance(each, New):
            return self.borders.held_by(self.part.stage, each.shape, each.dtype)
        return self.given.objects[each.index]

    def run(self, inner: Callable[..., Any]) -> tuple[Any, tuple[int, ...]]:
        """Run the part; return its output, and the places of the tensors of outer code's own that it wrote.

        Raises:
            UsageError: the part wrote into a tensor that other stages may have too.
        """
        given = self.given
        args, kwargs = given.make_real()
        taken = [(tensor, _writes(tensor)) for tensor in given.real_tensors]
        own = [
            (place, each, _writes(each))
            for place, each in enumerate(given.objects)
            if isinstance(each, torch.Tensor) and not isinstance(each, Remote)
        ]
        output = inner(*args, **kwargs)
        for tensor, before in taken:
            if _writes(tensor) != before:
                raise UsageError(
                    f"'{self.part.path}' writes into a tensor that it is given, which other stages may have "
                    "too",
                    help="run this model on one machine",
                )
        return output, tuple(place for place, each, before in own if _writes(each) != before)

    def wrapped(self, output: Any) -> Any:
        """Return the output with each tensor as a remote; one that was handed through as it was given."""
        given = self.given

        def wrap(tensor: torch.Tensor) -> torch.Tensor:
            known = given.by_real.get(id(tensor))
            if known is not None:
                return known
            if any(tensor is each for each in given.objects):
                return tensor
            return self._held(tensor)

        return swapped(output, lambda each: isinstance(each, torch.Tensor) and not remote_of(each), wrap)

    def _held(self, tensor: torch.Tensor) -> Remote:
        # As the others get it, so that outer code finds the same strides on every rank.
        return self.borders.held_by(self.part.stage, tensor.shape, tensor.dtype, tensor.contiguous())

    def as_known(self, known: Any, output: Any) -> Any:
        """Return what `wrapped` does, for an output that is as recorded.

        One walk, since it is done for each part of each token.

        Raises:
            _OtherShapeError: the output is not as recorded.
        """
        kind = type(known)
        if kind is New:
            is_made = (
                isinstance(output, torch.Tensor)
                and output.shape == known.shape
                and output.dtype == known.dtype
                and id(output) not in self.given.by_real
                and not isinstance(output, Remote)
            )
            if is_made:
                return self._held(output)
        elif kind is Given:
            own = self.given.objects[known.index]
            if own is output or self.given.by_real.get(id(output)) is own:
                return own
        elif isinstance(known, dict):
            if type(output) is kind and list(output) == list(known):
                inside = {name: self.as_known(value, output[name]) for name, value in known.items()}
                return inside if kind is dict else kind(**inside)
        elif isinstance(known, tuple | list):
            if type(output) is kind and len(output) == len(known):
                items = [self.as_known(*pair) for pair in zip(known, output, strict=True)]
                return kind(*items) if hasattr(output, "_fields") else kind(items)
        elif not isinstance(output, torch.Tensor) and known == output:
            return output
        raise _OtherShapeError

    def hand_out(self, written: tuple[int, ...]) -> None:
        """Send what the part wrote into tensors of outer code's own to the other ranks."""
        if written:
            others = self.borders.ranks(self.borders.all & ~self.borders.me)
            for place in written:
                self.borders.wire.send(self.given.objects[place].clone(), others)


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
        self.dicts: list[int] = []
        """The places of dicts among the objects that the part may fill."""
        self._look(args)
        self._signature.extend(kwargs)
        self._look(kwargs.values())
        self.by_real: dict[int, Remote] = {}
        self.real_tensors: list[torch.Tensor] = []
        self._before: dict[int, dict[Any, tuple[Any, Any]]] = {}
        self._filling: set[int] = set()
        """The dicts that have numbers in place of remotes, by `id`."""

    def _look(self, items: Iterable[Any]) -> None:
        for each in items:
            if type(each) in _LEAVES:
                self._signature.append(each)
            elif isinstance(each, torch.Tensor):
                self._signature.append((each.shape, each.dtype))
                self.objects.append(each)
            elif isinstance(each, _PLAIN):
                self._signature.append(each)
            elif isinstance(each, tuple | list):
                self._signature.append(len(each))
                self._look(each)
            elif isinstance(each, MutableMapping):
                if not hasattr(each, "to_tuple"):  # a model output is made anew, not filled
                    self.dicts.append(len(self.objects))
                self.objects.append(each)
                self._signature.append(tuple(map(str, each)))
                self._look(each.values())
            else:
                self._signature.append(type(each).__qualname__)
                found = [one for one in caches_in(each) if all(one is not known for known in self.caches)]
                self.caches += found
                self.objects += found or [each]

    def signature(self, layers: Sequence[int]) -> tuple[Any, ...]:
        """Return what decides the shapes of the results, the same on all ranks."""
        return (*self._signature, *(flags_of(each, layers) for each in self.caches))

    def make_real(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with numbers in place of remotes; dicts hold these until `filled`."""
        for index in self.dicts:
            held = self.objects[index]
            table = self._before[index] = {}
            for name, value in list(held.items()):
                real = self._real(value)
                table[name] = (value, real)
                held[name] = real
        self._filling = {id(self.objects[index]) for index in self.dicts}
        args = tuple([each if type(each) in _LEAVES else self._real(each) for each in self.args])
        kwargs = {
            name: each if type(each) in _LEAVES else self._real(each) for name, each in self.kwargs.items()
        }
        return args, kwargs

    def _real(self, obj: Any) -> Any:
        """Return the object with numbers in place of remotes, itself where it has none."""
        if isinstance(obj, Remote):
            return self._take(obj)
        if isinstance(obj, tuple | list | dict):
            return swapped(obj, self._is_swapped, self._swap)
        return obj

    def _is_swapped(self, obj: Any) -> bool:
        return isinstance(obj, Remote) or id(obj) in self._filling

    def _swap(self, obj: Any) -> Any:
        return self._take(obj) if isinstance(obj, Remote) else obj

    def _take(self, remote: Remote) -> torch.Tensor:
        real = remote.value.real
        assert real is not None
        self.by_real[id(real)] = remote
        self.real_tensors.append(real)
        return real

    def filled(self, wrap: Callable[[Any], Any]) -> list[tuple[int, Any, Any]]:
        """Give the dicts back their remotes; return what the part put into them, wrapped."""
        found = []
        for index in self.dicts:
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


def _writes(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch's counter of writes
