"""Tensors that one rank has and all ranks speak of.

Each rank runs the model's outer code. What a part gives is a `Remote` there, on the rank that made it as on
the others: shape and dtype, and behind it a `Value` that knows which ranks hold the numbers. Since all ranks
see the same operations on the same values, each works out alone which rank needs which value from which
other, and sends or receives it at that point; nothing is asked for.

An operation of the outer code on a remote is put off: the result is a remote too, and it is computed on the
rank that needs it. So a scaled embedding, or the last position of the hidden states, is never sent to ranks
that do not use it. What cannot be put off, because shapes depend on numbers or because it writes into a
tensor, is done on every rank, with the numbers handed to all of them.
"""

from __future__ import annotations

import functools
import operator
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeGuard

import torch

from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from devmap.distributed.wire import Wire

__all__ = ["Borders", "Need", "Remote", "Value", "borders_of_thread", "crossing", "remote_of", "swapped"]

_aten = torch.ops.aten
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd  # noqa: SLF001 - torch has no public way
_BY_SHAPE = {
    _aten.zeros_like.default,
    _aten.ones_like.default,
    _aten.full_like.default,
    _aten.empty_like.default,
    _aten.new_zeros.default,
    _aten.new_ones.default,
    _aten.new_full.default,
    _aten.new_empty.default,
}
"""Operations that look at no number of their first argument: each rank makes the result for itself."""


@dataclass(eq=False, slots=True)
class Value:
    """The numbers behind remotes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    holders: int = 0
    """The ranks that have them, as bits. None has what is put off until it is needed."""
    real: torch.Tensor | None = None
    """The numbers, on a rank that has them."""
    made_by: Deferred | None = None
    writes: int = 0
    """How often outer code has written into it."""
    strides: tuple[int, ...] | None = None
    """As the operation that is put off will leave them; None where it is contiguous, as what is sent is."""
    label: int | None = None
    """The number of what parts gave in this pass, the same on every rank; below 0 for tensors of outer code.
    """
    lost: str = ""
    """Why no rank hands it out, where none does: it is a weight or the cache of another stage, or made with
    one."""
    kept: int = 0
    """The rank that has what is lost here as a tensor of its own, and may use it, as a bit."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """An operation that is done where its result is needed."""

    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    index: int | None
    """Which of several results; None where there is one."""
    written: tuple[tuple[Any, int], ...]
    """The operands, and how often each had been written into."""


@dataclass(slots=True)
class Need:
    """A value that ranks use, as it was recorded in a pass."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    ranks: int = 0


class Remote(torch.Tensor):
    """A tensor whose numbers some ranks have."""

    value: Value
    borders: Borders
    takes_over = True
    """Of operations together with tensors of other classes, such as those on simulated devices."""

    def __new__(cls, value: Value, borders: Borders, device: torch.device) -> Self:
        """Make one over a value; `device` is where this rank would have it."""
        made: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - how torch makes them
            cls,
            value.shape,
            strides=value.strides,
            dtype=value.dtype,
            device=device,
            requires_grad=False,
        )
        made.value = value
        made.borders = borders
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        """Return the shape and who has it: the numbers may be elsewhere."""
        where = self.value.lost or f"ranks {self.borders.ranks(self.value.holders)}"
        return f"Remote({tuple(self.shape)}, {self.dtype}, {where})"

    def plain(self) -> torch.Tensor:
        """Return the tensor on every rank. Every rank calls it, at the same point of the outer code."""
        borders = borders_of_thread(self.borders)
        borders.need(self.value, borders.all)
        return self.here()

    def here(self) -> torch.Tensor:
        """Return the tensor on a rank that holds it."""
        real = self.value.real
        assert real is not None
        return real if real.device == self.device else real.to(self.device)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch passes them so
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Put the operation off, or do it on every rank."""
        del types
        kwargs = kwargs or {}
        if func.has_kernel_for_dispatch_key(_COMPOSITE):  # these come here whole in inference mode
            return func.decompose(*args, **kwargs)
        first = next(each for each in _operands(args, kwargs) if isinstance(each, Remote))
        return borders_of_thread(first.borders).operate(func, args, kwargs, first)


_thread = threading.local()


def borders_of_thread(usual: Borders) -> Borders:
    """Return the borders that this thread's microbatch crosses; the usual ones where it has none."""
    found: Borders = getattr(_thread, "borders", usual)
    return found


@contextmanager
def crossing(borders: Borders) -> Iterator[None]:
    """Let everything that this thread does inside cross borders of its own.

    Ranks then do the same operations in the same order on each microbatch's borders, however the threads of
    several microbatches take turns.
    """
    _thread.borders = borders
    try:
        yield
    finally:
        del _thread.borders


def remote_of(obj: Any) -> TypeGuard[Remote]:
    """Return whether something is a remote."""
    return isinstance(obj, Remote)


@dataclass(eq=False)
class Borders:
    """Where values cross from rank to rank."""

    wire: Wire
    device: torch.device
    """Where this rank's outer code computes."""
    labels: int = 0
    """How many results of parts there were in this pass."""
    needs: dict[int, Need] | None = None
    """While a pass is recorded, by label what was made by a part or kept by outer code, and who used it."""
    me: int = field(init=False)
    """This rank, as a bit."""
    all: int = field(init=False)

    def __post_init__(self) -> None:
        self.me = 1 << self.wire.rank
        self.all = (1 << self.wire.size) - 1

    def ranks(self, bits: int) -> list[int]:
        """Return the ranks of a set of bits."""
        return [rank for rank in range(self.wire.size) if bits >> rank & 1]

    def held_by(self, stage: int, shape: Sequence[int], dtype: torch.dtype, real: Any = None) -> Remote:
        """Return a remote that one rank has; `real` is given there."""
        value = Value(tuple(shape), dtype, 1 << stage, real if self.me >> stage & 1 else None)
        value.label = self.labels
        self.labels += 1
        return Remote(value, self, self.device)

    def lost(self, shape: Sequence[int], dtype: torch.dtype, why: str, stage: int) -> Remote:
        """Return a remote for what a stage keeps to itself; where another needs it, that is said."""
        return Remote(Value(tuple(shape), dtype, lost=why, kept=1 << stage), self, self.device)

    def need(self, value: Value, ranks: int) -> None:
        """See to it that ranks have a value. Every rank calls it, at the same point.

        Raises:
            UsageError: when no rank hands the value out.
        """
        if self.needs is not None:
            self.note(value, ranks)
        missing = ranks & ~value.holders
        if not missing:
            return
        if value.lost and not value.holders:
            self._leave(value, missing)
            return
        if value.holders:
            source = (value.holders & -value.holders).bit_length() - 1
            if value.holders & -value.holders & self.me:
                assert value.real is not None
                self.wire.send(value.real, self.ranks(missing))
            elif missing & self.me:
                value.real = self.wire.receive(value.shape, value.dtype, source).to(self.device)
        else:
            assert value.made_by is not None
            self._make(value, value.made_by, missing)
        value.holders |= missing

    def _leave(self, value: Value, ranks: int) -> None:
        """Leave what a stage keeps to that stage, which alone may need it; hand it what else it is made of.

        There it is a tensor of its own, or put off as any operation.

        Raises:
            UsageError: another rank needs it.
        """
        if ranks & ~value.kept:
            raise UsageError(
                f"the model's own code asks for {value.lost}",
                help="this model cannot be divided there; give both modules to one stage",
            )
        if value.made_by is not None:
            for operand, _ in value.made_by.written:
                if isinstance(operand, Remote):
                    self.need(operand.value, ranks)
            value.holders |= ranks

    def note(self, value: Value, ranks: int) -> None:
        """Note which ranks use what a value is made of."""
        assert self.needs is not None
        if value.made_by is not None:
            for operand, _ in value.made_by.written:
                if isinstance(operand, Remote):
                    self.note(operand.value, ranks)
        elif value.label is not None:
            need = self.needs.setdefault(value.label, Need(value.shape, value.dtype))
            need.ranks |= ranks

    def _make(self, value: Value, deferred: Deferred, ranks: int) -> None:
        for operand, writes in deferred.written:
            if _writes(operand) != writes:
                raise UsageError(
                    f"the model's outer code writes into an operand of {deferred.call} before the result is "
                    "used, which cannot be followed over several ranks",
                    help="run this model on one machine",
                )
            if isinstance(operand, Remote):
                self.need(operand.value, ranks)
        if not ranks & self.me:
            return
        args = swapped(deferred.args, remote_of, lambda each: each.here())
        kwargs = swapped(deferred.kwargs, remote_of, lambda each: each.here())
        made = deferred.call(*args, **kwargs)
        value.real = made if deferred.index is None else made[deferred.index]

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], first: Remote) -> Any:
        """Do an operation of outer code on remotes: put it off, or do it on every rank."""
        operands = _operands(args, kwargs)
        remotes = [each.value for each in operands if isinstance(each, Remote)]
        lost = [value for value in remotes if value.lost]
        if func is _aten._to_copy.default and _moves_only(args, kwargs):  # noqa: SLF001 - its name
            # No new value: whether a tensor has to move is not the same on all ranks.
            return Remote(first.value, self, torch.device(kwargs["device"]))
        if func in _BY_SHAPE and first is args[0]:
            stand_in = torch.empty((), dtype=first.dtype, device=first.device).expand(first.shape)
            return func(stand_in, *args[1:], **{**kwargs, **_contiguous(func)})
        is_write = func._schema.is_mutable  # noqa: SLF001 - torch has no public way to ask
        draws = torch.Tag.nondeterministic_seeded in func.tags
        # The rank that keeps what is lost here would do these on every rank, and wait for this one.
        if lost and len(lost) < len(remotes) and (is_write or draws):
            raise UsageError(
                f"the model's own code puts {lost[0].lost} together with other tensors by {func}",
                help="this model cannot be divided there; give both modules to one stage",
            )
        if is_write:
            return args[0] if lost else self._write(func, args, kwargs)
        shapes = None
        if lost or not draws:  # else all draw the same numbers
            shapes = _shapes_of(func, args, kwargs)
        if shapes is None:
            return self._everywhere(func, args, kwargs)
        several = not isinstance(shapes, torch.Tensor)
        written = tuple((each, _writes(each)) for each in operands)
        made = []
        for index, shape in enumerate(shapes if several else [shapes]):
            value = Value(tuple(shape.shape), shape.dtype, strides=shape.stride())
            if lost:
                value.lost = lost[0].lost
                value.kept = functools.reduce(operator.and_, (each.kept for each in lost))
            # What is made of lost values alone is a tensor where they are kept: nothing is handed on for it.
            if any(not each.lost or each.made_by is not None for each in remotes):
                value.made_by = Deferred(func, args, kwargs, index if several else None, written)
            made.append(Remote(value, self, torch.device(kwargs.get("device") or first.device)))
        return type(shapes)(made) if several else made[0]

    def _everywhere(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return func(
            *swapped(args, remote_of, lambda each: each.plain()),
            **swapped(kwargs, remote_of, lambda each: each.plain()),
        )

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Write on every rank, into each rank's own tensor."""
        target = args[0]
        if isinstance(target, Remote) and target.value.made_by is not None and target.value.holders:
            raise UsageError(
                f"the model's outer code writes ({func}) into a part of a tensor that ranks have already",
                help="run this model on one machine",
            )
        if isinstance(target, Remote):
            target.plain()
            target.value.real = target.here()
        made = self._everywhere(func, args, kwargs)
        if isinstance(target, Remote):
            target.value.writes += 1
            return target if made is target.value.real else made
        return made


def _shapes_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return an operation's results on meta: a tensor, or several; None where numbers decide."""
    there = {**kwargs, "device": "meta"} if "device" in kwargs else kwargs
    try:
        found = func(*swapped(args, _is_tensor, _as_meta), **swapped(there, _is_tensor, _as_meta))
    except (RuntimeError, NotImplementedError):
        # Its shape depends on numbers, or no kernel can say. A call that is wrong raises again where it is
        # done with the tensors themselves.
        return None
    several = found if isinstance(found, tuple | list) else [found]
    return found if all(isinstance(each, torch.Tensor) for each in several) else None


def swapped(obj: Any, wanted: Callable[[Any], bool], new: Callable[[Any], Any]) -> Any:
    """Return the object with what is wanted in it replaced, through tuples, lists, dicts and model outputs.

    What holds nothing of the kind is returned itself, not a copy.
    """
    if wanted(obj):
        return new(obj)
    if isinstance(obj, dict):
        inside = {key: swapped(value, wanted, new) for key, value in obj.items()}
        if any(inside[key] is not value for key, value in obj.items()):
            # A model output of Transformers takes its entries as arguments.
            return inside if type(obj) is dict else type(obj)(**inside)
    elif isinstance(obj, tuple | list):
        items = [swapped(item, wanted, new) for item in obj]
        if any(after is not before for after, before in zip(items, obj, strict=True)):
            return type(obj)(*items) if hasattr(obj, "_fields") else type(obj)(items)
    return obj


def _operands(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for each in (*args, *kwargs.values()):
        if isinstance(each, torch.Tensor):
            found.append(each)
        elif isinstance(each, tuple | list):
            found += [item for item in each if isinstance(item, torch.Tensor)]
    return found


def _is_tensor(obj: Any) -> bool:
    return isinstance(obj, torch.Tensor)


def _as_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def _writes(operand: torch.Tensor) -> int:
    if isinstance(operand, Remote):
        return operand.value.writes
    return 0 if operand.is_inference() else operand._version  # noqa: SLF001 - torch's counter of writes


def _moves_only(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return kwargs.get("device") is not None and (dtype is None or dtype == args[0].dtype)


def _contiguous(func: Any) -> dict[str, Any]:
    """Return what lets an operation that copies its argument's layout make a contiguous tensor."""
    return {"memory_format": torch.contiguous_format} if "_like" in func.name() else {}
