"""What a model is made of, with no weights and no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NewType, TypeVar

from devmap.inventory.dtypes import storage_bytes
from devmap.inventory.flat_index import FlatIndex
from devmap.inventory.patterns import PathIndex
from devmap.lazy import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from os import PathLike

    from torch import nn

    from devmap.config.model.quantization_settings import QuantizationSettings
    from devmap.inventory.stored.checkpoint import Checkpoint
    from devmap.inventory.stored.mapping import WeightMapping

__all__ = ["Architecture", "Inventory", "ModulePath", "Tensor", "TensorKind", "TensorSignature"]

Answer = TypeVar("Answer")

ModulePath = NewType("ModulePath", str)
"""The dotted path of a module or tensor as `named_modules()` and `state_dict()` give it; `""` is the root."""

TensorKind = Literal["parameter", "buffer", "part"]
"""A part is packed numbers, a scale or a table of a quantised weight: it streams as a parameter does, and
keeps its dtype."""


TensorSignature = tuple[tuple[int, ...], str, TensorKind, bool]
"""Shape, dtype, kind and persistence: all of a tensor but its name."""


class Tensor(NamedTuple):
    """One parameter or buffer, under the name that the running model gives it.

    A named tuple, since models have 10^5 of them.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    """torch's name without `torch.`: `bfloat16`, `float8_e4m3fn`. For a header this is the checkpoint's
    dtype."""
    kind: TensorKind = "parameter"
    persistent: bool = True
    """Whether `state_dict()` holds it. Parameters always are; a buffer that is not is computed, never loaded.
    """

    @property
    def nbytes(self) -> int:
        """Bytes at its own dtype."""
        return storage_bytes(self.shape, self.dtype)

    @property
    def module(self) -> str:
        """The path of the module that owns it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Architecture:
    """What `config.json` says of the model, as far as planning uses it."""

    model_type: str
    """transformers' word for the family: `llama`, `t5`."""
    class_name: str
    """The class of the root module: `LlamaForCausalLM`."""
    figures: Mapping[str, int | float | str | bool | list[int | str] | None] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Figures for KV cache and activations: hidden_size, num_hidden_layers, num_key_value_heads, head_dim,
    sliding_window, ..."""


@dataclass(frozen=True)
class Inventory:
    """A model's modules and tensors in registration order.

    The three readers give equal inventories for the same model: `checkpoint`, `mapping` and `notes` say where
    an inventory came from and do not count in the comparison.

    `modules` maps the path of every module that holds a tensor, or has a descendant that does, to its class
    name; the root is `""`. Order is `named_modules()`'s: depth first, in registration order. `tensors` is in
    the same order: a module's own parameters, its own buffers, then its children. A tied tensor stands under
    each of its names.
    """

    modules: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    ties: tuple[tuple[str, ...], ...] = ()
    """Groups of tensor names that share one storage; each group, and the groups, in tensor order. The first
    name owns the bytes."""
    no_split_module_classes: tuple[str, ...] = ()
    """Class names that the model's own code, or the built-in table, says must not be spread over devices, and
    those of its repeated blocks. Sorted."""
    architecture: Architecture | None = None
    checkpoint: Checkpoint | None = field(default=None, compare=False, repr=False)
    """The files behind the tensors, if this came from (or was matched with) a checkpoint."""
    mapping: WeightMapping | None = field(default=None, compare=False, repr=False)
    """How the checkpoint's tensors make the model's; None without a checkpoint."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What a reader could not know, in sentences: an architecture that no table has, tensors that nothing
    maps to."""

    quantized_by: QuantizationSettings | None = field(default=None, compare=False, repr=False)
    """How weights are quantised while they are loaded, where this describes the model as it then runs."""

    @classmethod
    def from_checkpoint(cls, path: str | PathLike[str], *, dequantize: bool = False) -> Inventory:
        """Describe a safetensors checkpoint from its headers and `config.json`, without torch.

        A checkpoint is a folder, a file or an index. Quantised weights are described as they are stored, or,
        with `dequantize`, whole.

        Raises:
            CheckpointError: when it is absent, damaged or no safetensors.
        """
        # The readers build this class, so they import this module and it may not import them.
        inventory: Inventory = lazy("devmap.inventory.reader", "read_checkpoint")(path, dequantize=dequantize)
        return inventory

    @classmethod
    def from_manifest(cls, path: str | PathLike[str]) -> Inventory:
        """Read a manifest file that `devmap inspect -o` wrote.

        Raises:
            ManifestError: listing what is wrong with it.
        """
        inventory: Inventory = lazy("devmap.inventory.manifests.manifest", "read_manifest")(path)
        return inventory

    @classmethod
    def from_module(cls, model: nn.Module) -> Inventory:
        """Describe a live module, on any device or on meta."""
        inventory: Inventory = lazy("devmap.inventory.live.module", "read_module")(model)
        return inventory

    @cached_property
    def index(self) -> PathIndex:
        """All module and tensor paths as a tree, for the keys of maps."""
        return PathIndex([*self.modules, *self.tensors])

    @cached_property
    def owner(self) -> Mapping[str, str]:
        """For each name of a tie group, the group's first name, which owns the bytes.

        Untied names are absent.
        """
        return {name: group[0] for group in self.ties for name in group}

    @cached_property
    def flat_index(self) -> FlatIndex:
        """Modules and tensors by number, every subtree one stretch."""
        return FlatIndex.of(self.modules, self.tensors)

    @cached_property
    def signatures(self) -> tuple[tuple[TensorSignature, ...], tuple[int, ...]]:
        """Return the distinct signatures, and for each tensor the number of its own.

        10^5 tensors share a handful.
        """
        numbers: dict[TensorSignature, int] = {}
        signature_of = tuple(
            [
                numbers.setdefault((shape, dtype, kind, kept), len(numbers))
                for _, shape, dtype, kind, kept in self.tensors.values()
            ]
        )
        return tuple(numbers), signature_of

    @cached_property
    def remembered(self) -> dict[Hashable, Any]:
        """What was worked out from this inventory alone, by question.

        A thousand configs of one model ask the same.
        """
        return {}

    def once(self, question: Hashable, answer: Callable[[], Answer]) -> Answer:
        """Return the answer to a question about this inventory alone, worked out the first time."""
        known: Answer | None = self.remembered.get(question)
        if known is None:
            known = self.remembered[question] = answer()
        return known

    @cached_property
    def children(self) -> Mapping[str, tuple[str, ...]]:
        """The paths of each module's direct child modules, in order."""
        found: dict[str, list[str]] = {}
        for path in self.modules:
            if path:
                found.setdefault(path.rpartition(".")[0], []).append(path)
        return {**dict.fromkeys(self.modules, ()), **{path: tuple(paths) for path, paths in found.items()}}

    @cached_property
    def own_tensors(self) -> Mapping[str, tuple[Tensor, ...]]:
        """The tensors that sit directly on each module, in order."""
        found: dict[str, tuple[Tensor, ...]] = dict.fromkeys(self.modules, ())
        several: dict[str, list[Tensor]] = {}
        for name, tensor in self.tensors.items():
            path = name.rpartition(".")[0]
            if found[path]:
                several.setdefault(path, list(found[path])).append(tensor)
            else:
                found[path] = (tensor,)
        found.update({path: tuple(tensors) for path, tensors in several.items()})
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors at their own dtypes, a tied one once."""
        owner = self.owner
        return sum(tensor.nbytes for name, tensor in self.tensors.items() if owner.get(name, name) == name)
