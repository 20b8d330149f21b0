"""The model's tensors as they will run, where their bytes come from.

And how a block of them lies in one slab.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from devmap.inventory.dtypes import run_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from devmap.inventory.model import Inventory, TensorKind
    from devmap.inventory.stored.checkpoint import StoredTensor
    from devmap.inventory.stored.mapping import Piece
    from devmap.runtime.storage.module_scan import ModuleScan
    from devmap.runtime.storage.packing import PackedParameter

__all__ = [
    "ALIGNMENT",
    "SlabField",
    "SlabLayout",
    "Weight",
    "Weights",
    "assembled",
    "flat_bytes",
    "lay_out",
    "runs_as",
    "torch_dtype",
]

ALIGNMENT = 64
"""Bytes. Kernels read aligned rows fastest; a cache line is enough on every device that torch knows."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of the running model, under the name that owns its bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    """The dtype it runs in."""
    kind: TensorKind
    stored: tuple[tuple[StoredTensor, Piece], ...] = ()
    """The stored tensors that make it, where a checkpoint is behind it."""
    live: torch.Tensor | None = None
    """The tensor itself, where it came with the module."""
    maker: Callable[[], torch.Tensor] | None = None
    """What computes it in host memory from stored tensors, where no piece of a file is it."""
    packing: PackedParameter | None = None
    """How the parts make it, where it is a quantised parameter."""
    parts: tuple[Weight, ...] = ()
    """The plain tensors that a quantised parameter is made of; they have the bytes."""

    @property
    def plain(self) -> tuple[Weight, ...]:
        """The tensors that have its bytes: its parts, or itself."""
        return self.parts or (self,)

    @property
    def has_value(self) -> bool:
        """Whether there is no file to read it from: it is live, or has to be made."""
        return self.live is not None or self.maker is not None

    def value(self) -> torch.Tensor:
        """Return a weight without a file in host memory, at the run dtype; it is made anew where it is made.

        Raises:
            StreamError: when what it is made from cannot be read.
        """
        found = self.live if self.live is not None else self.maker() if self.maker is not None else None
        assert found is not None
        return found.detach().to("cpu", self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes at the run dtype."""
        if self.parts:
            return sum(part.nbytes for part in self.parts)
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class SlabField:
    """Where a weight lies in a slab, in bytes from its start."""

    weight: Weight
    offset: int


@dataclass(frozen=True)
class SlabLayout:
    """Weights side by side in one flat slab, without a gap."""

    fields: tuple[SlabField, ...]
    nbytes: int
    packed: tuple[Weight, ...] = ()
    """The quantised parameters whose parts are among the fields."""

    def views(self, slab: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the weights as views of a slab of at least `nbytes`."""
        return self.assembled({field.weight.name: _view(slab, field) for field in self.fields})

    def view(self, slab: torch.Tensor, name: str) -> torch.Tensor:
        """Return one weight as a view of a slab."""
        return self.views(slab)[name]

    def assembled(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the fields' tensors.

        With the quantised parameters that they are parts of in their places.
        """
        return assembled(tensors, self.packed) if self.packed else tensors

    def weight(self, name: str) -> Weight:
        """Return the weight of that name, which may be a quantised parameter."""
        found = [*self.packed, *(field.weight for field in self.fields)]
        return next(weight for weight in found if weight.name == name)


def _view(slab: torch.Tensor, field: SlabField) -> torch.Tensor:
    weight = field.weight
    return slab[field.offset : field.offset + weight.nbytes].view(weight.dtype).view(weight.shape)


def lay_out(weights: Iterable[Weight]) -> SlabLayout:
    """Put weights side by side so that nothing is wasted.

    Weights of whole cache lines come first, in the order of the file, and so stay aligned; the rest follows
    by falling element size, so that each is aligned to its own elements. A slab is thus exactly as big as its
    weights, which is what the planner charges for a slot.
    """
    weights = list(weights)
    fields: list[SlabField] = []
    offset = 0
    for part in sorted((part for weight in weights for part in weight.plain), key=_order):
        fields.append(SlabField(part, offset))
        offset += part.nbytes
    return SlabLayout(
        tuple(fields), offset, tuple(weight for weight in weights if weight.packing is not None)
    )


def assembled(tensors: Mapping[str, torch.Tensor], packed: Iterable[Weight]) -> dict[str, torch.Tensor]:
    """Tensors by name, with quantised parameters in the places of their parts."""
    found = dict(tensors)
    for weight in packed:
        assert weight.packing is not None
        parts = {part.name: found.pop(part.name) for part in weight.parts}
        found[weight.name] = weight.packing.assemble(parts)
    return found


def _order(weight: Weight) -> tuple[bool, int, str, int, str]:
    ragged = weight.nbytes % ALIGNMENT != 0
    first = weight.stored[0][0] if weight.stored else None
    return (
        ragged,
        -weight.dtype.itemsize if ragged else 0,
        str(first.file) if first else "",
        first.offset if first else 0,
        weight.name,
    )


def torch_dtype(name: str) -> torch.dtype | None:
    """Torch's dtype of that name; None for those that only safetensors has."""
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else None


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor as flat `torch.uint8`: a view where it is contiguous, else a copy."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def runs_as(dtype: torch.dtype, asked: str | None, kind: TensorKind) -> torch.dtype:
    """Return the dtype that a tensor of `dtype` has in the running model; `asked` is the plan's."""
    return torch_dtype(run_dtype(_plain(dtype), asked, kind=kind)) or dtype


class Weights(dict[str, Weight]):
    """Each owner's tensor as it will run.

    Real ones as they are, those on meta from the inventory's checkpoint.

    A weight is made when it is asked for: a tensor that stays where and what it is never is. A weight on meta
    that no stored tensor makes has neither `stored` nor `live`; `devmap.runtime.preflight` reports it.
    """

    def __init__(
        self,
        found: ModuleScan,
        inventory: Inventory | None,
        dtype: str | None,
        packings: Mapping[str, PackedParameter] | None = None,
        makers: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    ) -> None:
        """`dtype` is the plan's run dtype; `packings` are by the names of quantised parameters.

        `makers` compute what no piece of a file is, by name; parts of quantised parameters too.
        """
        super().__init__()
        self._found = found
        self._inventory = inventory
        self._dtype = dtype
        self._packings = packings or {}
        self._makers = makers or {}

    def __missing__(self, owner: str) -> Weight:
        packing = self._packings.get(owner)
        if packing is not None:
            made = self[owner] = self._packed(owner, packing)
            return made
        kind, tensor = self._found.owners[owner].kind, self._found.tensor(owner)
        stored = (
            _stored((owner, *self._found.second_names.get(owner, ())), self._inventory)
            if tensor.is_meta
            else ()
        )
        own = torch_dtype(self._dtype_of(owner, stored[0][0])) if stored else tensor.dtype
        runs_in = tensor.dtype if own is None else runs_as(own, self._dtype, kind)
        live = None if tensor.is_meta else tensor
        maker = self._makers.get(owner) if tensor.is_meta and not stored else None
        made = self[owner] = Weight(owner, tuple(tensor.shape), runs_in, kind, stored, live, maker)
        return made

    def _dtype_of(self, owner: str, stored: StoredTensor) -> str:
        """Return what a tensor runs in where the plan has no dtype: components may have one each."""
        known = self._inventory.tensors.get(owner) if self._inventory is not None else None
        return stored.dtype if known is None else known.dtype

    def packing(self, owner: str) -> PackedParameter | None:
        """Return how the parts of a quantised parameter make it; None for any other tensor."""
        return self._packings.get(owner)

    def _packed(self, owner: str, packing: PackedParameter) -> Weight:
        assert self._inventory is not None
        parts = []
        for name in packing.names:
            stored = _stored((name,), self._inventory)
            tensor = self._inventory.tensors[name]
            dtype = torch_dtype(tensor.dtype)
            assert dtype is not None
            maker = None if stored else self._makers.get(name)
            parts.append(Weight(name, tensor.shape, dtype, "part", stored, maker=maker))
        first = parts[0]
        return Weight(owner, first.shape, first.dtype, "parameter", packing=packing, parts=tuple(parts))


def _stored(names: Iterable[str], inventory: Inventory | None) -> tuple[tuple[StoredTensor, Piece], ...]:
    if inventory is None or inventory.checkpoint is None or inventory.mapping is None:
        return ()
    tensors = inventory.checkpoint.tensors
    for name in names:
        pieces = inventory.mapping.pieces.get(name, ())
        if pieces and all(piece.stored in tensors for piece in pieces):
            return tuple((tensors[piece.stored], piece) for piece in pieces)
    return ()


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
