"""What the workload keeps beside the weights, charged to the atom that causes it, with the arithmetic.

Training: gradients and optimizer states of the trained parameters, on the device that holds them. Bytes an
element, from the optimizers' own documentation: AdamW two float32 moments (and a float32 master copy where
the model runs in half precision), 8-bit AdamW two one-byte moments, Adafactor a row and a column of float32
for each matrix (a full float32 second moment for vectors), Lion one float32 momentum, SGD none, SGD with
momentum one in the parameter's dtype. Saved activations are an estimate: 34 bytes an element of hidden state
and layer in half precision, the sum of Korthikanti et al., "Reducing Activation Recomputation in Large
Transformer Models" (2022), section 4.1, without the attention scores that fused kernels do not keep.

Inference and server: the KV cache of each layer (`kv_cache`), and on every device that executes something the
working set of the largest layer, an estimate: batch x sequence x (4 hidden + 2 intermediate) elements. Logits
are not counted: generation needs them for one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import Optimizer, WorkloadKind
from devmap.inventory.dtypes import element_bits, run_dtype
from devmap.planning.problem.constraints import atoms_named
from devmap.planning.problem.kv_cache import CacheShape, figure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from devmap.config.model.placement_config import Workload
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Architecture, Inventory

__all__ = [
    "WorkloadCharge",
    "WorkloadCharges",
    "charges",
    "layer_lists",
    "main_dtype",
    "per_device",
    "tokens_of",
]

_HALF = {"float16", "bfloat16"}
_TRAINABLE = {"float64", "float32", "float16", "bfloat16"}
_SAVED_BYTES_PER_ELEMENT = 34
_DEFAULT_LENGTH = 2048


@dataclass(frozen=True)
class WorkloadCharge:
    """One kind of charge: bytes by atom."""

    what: str
    by_atom: Mapping[int, int]
    arithmetic: str
    """Of one atom, in words."""
    follows_home: bool
    """Whether it lies where the weights live; otherwise where they are executed."""
    is_by_layer: bool = True
    """Whether several layers of a device each cause it; otherwise its arithmetic says it all."""


@dataclass(frozen=True)
class WorkloadCharges:
    """All charges of a workload."""

    by_kind: tuple[WorkloadCharge, ...] = ()
    activation_bytes: int = 0
    """Kept free on every device that executes something."""
    activation_arithmetic: str = ""
    trained: frozenset[int] = frozenset()
    """Atoms with parameters that training changes."""
    notes: tuple[str, ...] = ()

    def totals(self, count: int, *, follows_home: bool) -> tuple[int, ...]:
        """Return the bytes of each of `count` atoms that lie at its home, or where it is executed."""
        found = [0] * count
        for charge in self.by_kind:
            if charge.follows_home is follows_home:
                for at, nbytes in charge.by_atom.items():
                    found[at] += nbytes
        return tuple(found)


def charges(
    workload: Workload | None, inventory: Inventory, atoms: Sequence[Atom], *, dtype: str | None
) -> WorkloadCharges:
    """Return what a workload adds to each atom and device; nothing where the config names no workload.

    Raises:
        DeviceMapError: when `trainable` names something that the model does not have.
    """
    if workload is None:
        return WorkloadCharges()
    if workload.kind is WorkloadKind.TRAINING:
        return _training(workload, inventory, atoms, dtype)
    return _inference(workload, inventory, atoms, dtype)


def _training(
    workload: Workload, inventory: Inventory, atoms: Sequence[Atom], dtype: str | None
) -> WorkloadCharges:
    trained = frozenset(range(len(atoms)))
    if workload.trainable is not None:
        trained = frozenset(atoms_named(workload.trainable, inventory.index, atoms, "workload.trainable"))
    optimizer = workload.optimizer or Optimizer.ADAMW
    owner = inventory.owner
    gradients: dict[int, int] = {}
    states: dict[int, int] = {}
    for at in sorted(trained):
        for name in atoms[at].tensors:
            tensor = inventory.tensors[name]
            running = run_dtype(tensor.dtype, dtype, kind=tensor.kind)
            if tensor.kind == "parameter" and owner.get(name, name) == name and running in _TRAINABLE:
                elements = tensor.nbytes * 8 // element_bits(tensor.dtype)
                gradients[at] = gradients.get(at, 0) + elements * element_bits(running) // 8
                states[at] = states.get(at, 0) + _state_bytes(optimizer, tensor.shape, elements, running)
    found = [WorkloadCharge("gradients", gradients, "1 x the trained parameters", follows_home=True)]
    if any(states.values()):
        found.append(
            WorkloadCharge("optimizer", states, f"{optimizer.value}: {_STATES[optimizer]}", follows_home=True)
        )
    saved, notes = _saved_activations(workload, inventory, atoms, dtype)
    return WorkloadCharges((*found, *saved), trained=frozenset(gradients), notes=notes)


_STATES = {
    Optimizer.ADAMW: "2 float32 moments per element, and a float32 master copy in half precision",
    Optimizer.ADAMW_8BIT: "2 one-byte moments per element",
    Optimizer.ADAFACTOR: "a float32 row and column per matrix",
    Optimizer.LION: "1 float32 momentum per element",
    Optimizer.SGD: "none",
    Optimizer.SGD_MOMENTUM: "1 momentum per element in the parameter's dtype",
}


# One return an optimizer.
def _state_bytes(optimizer: Optimizer, shape: Sequence[int], elements: int, dtype: str) -> int:  # noqa: PLR0911
    if optimizer is Optimizer.ADAMW:
        return elements * (12 if dtype in _HALF else 8)
    if optimizer is Optimizer.ADAMW_8BIT:
        return elements * 2
    if optimizer is Optimizer.LION:
        return elements * 4
    if optimizer is Optimizer.SGD_MOMENTUM:
        return elements * element_bits(dtype) // 8
    if optimizer is Optimizer.ADAFACTOR:
        if len(shape) < 2 or not elements:
            return elements * 4
        return 4 * (elements // shape[-1] + elements // shape[-2])
    return 0


def _saved_activations(
    workload: Workload, inventory: Inventory, atoms: Sequence[Atom], dtype: str | None
) -> tuple[list[WorkloadCharge], tuple[str, ...]]:
    architecture = inventory.architecture
    hidden = figure(architecture, "hidden_size", "d_model", "n_embd") if architecture else 0
    if architecture is None or not hidden:
        return [], ("The model's config gives no hidden size: saved activations are not counted.",)
    running = dtype or main_dtype(inventory)
    length = tokens_of(workload, architecture)
    factor = _SAVED_BYTES_PER_ELEMENT * element_bits(running) // 16
    each = workload.batch_size * length * hidden * factor
    layers = [layer for found in layer_lists(inventory) for layer in found]
    by_atom = dict.fromkeys(_first_atoms(atoms, layers).values(), each)
    words = (
        f"{workload.batch_size} x {length:,} tokens x {hidden:,} hidden "
        f"x {factor} bytes per layer, an estimate"
    )
    return [WorkloadCharge("activations", by_atom, words, follows_home=False)], ()


def _inference(
    workload: Workload, inventory: Inventory, atoms: Sequence[Atom], dtype: str | None
) -> WorkloadCharges:
    architecture = inventory.architecture
    if architecture is None or not architecture.figures:
        return WorkloadCharges(
            notes=("The model has no config.json: its KV cache and activations are not counted.",)
        )
    running = dtype or main_dtype(inventory)
    found: list[WorkloadCharge] = []
    notes: tuple[str, ...] = ()
    layers = _decoder_layers(inventory)
    if layers:
        shape = CacheShape.of(
            architecture,
            batch_size=workload.batch_size,
            length=tokens_of(workload, architecture),
            dtype=workload.kv_cache_dtype or running,
        )
        if shape is None:
            notes = ("The model's config gives no attention heads: its KV cache is not counted.",)
        else:
            places = _first_atoms(atoms, layers)
            by_atom: dict[int, int] = {}
            for number, layer in enumerate(layers):
                if layer in places:
                    by_atom[places[layer]] = by_atom.get(places[layer], 0) + shape.nbytes(number)
            if shape.has_unknown_states:
                notes = (
                    (
                        "The model's config does not give the size of its recurrent layers' state: it is not "
                        "counted."
                    ),
                )
            kinds = dict.fromkeys(
                shape.arithmetic(number) for number in range(len(layers)) if shape.nbytes(number)
            )
            if kinds:
                found.append(WorkloadCharge("kv cache", by_atom, " or ".join(kinds), follows_home=False))
    hidden = figure(architecture, "hidden_size", "d_model", "n_embd")
    inner = (
        figure(
            architecture,
            "intermediate_size",
            "ffn_dim",
            "ffn_hidden_size",
            "d_ff",
            "n_inner",
            "decoder_ffn_dim",
        )
        or 4 * hidden
    )
    length = tokens_of(workload, architecture)
    size = element_bits(running) / 8
    nbytes = int(workload.batch_size * length * (4 * hidden + 2 * inner) * size)
    words = (
        f"{workload.batch_size} x {length:,} tokens x (4 x {hidden:,} hidden + 2 x {inner:,} "
        f"intermediate) x {size:g} bytes, an estimate"
    )
    return WorkloadCharges(tuple(found), nbytes, words, notes=notes)


def tokens_of(workload: Workload, architecture: Architecture) -> int:
    """Return the tokens of one sequence, prompt and answer together."""
    limit = figure(architecture, "max_target_positions", "max_position_embeddings", "n_positions")
    return workload.sequence_length or min(_DEFAULT_LENGTH, limit or _DEFAULT_LENGTH)


def main_dtype(inventory: Inventory) -> str:
    """Return the floating dtype that holds the most bytes; ties go to the first in the model.

    Scales of quantised weights are of a dtype of their own, and nothing runs in it.
    """
    found: dict[str, int] = {}
    for tensor in inventory.tensors.values():
        if tensor.dtype in _TRAINABLE and tensor.kind != "part":
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.nbytes
    return max(found, key=lambda name: found[name]) if found else "float32"


_ENCODERS = frozenset(
    [
        "albert",
        "bert",
        "camembert",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "funnel",
        "layoutlm",
        "longformer",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "roformer",
        "squeezebert",
        "xlm-roberta",
        "vit",
        "siglip",
        "clip",
    ]
)
"""Families that attend in both directions at once and keep no cache."""


def _decoder_layers(inventory: Inventory) -> list[str]:
    """Return the layers that keep a cache, in order."""
    architecture = inventory.architecture
    if architecture is None or architecture.model_type in _ENCODERS:
        return []
    lists = layer_lists(inventory)
    if architecture.figures.get("is_encoder_decoder") is True:
        lists = [layers for layers in lists if "decoder" in layers[0].split(".")]
        return [layer for layers in lists for layer in layers]
    count = figure(architecture, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    fitting = [layers for layers in lists if len(layers) == count] or sorted(lists, key=len, reverse=True)[:1]
    return fitting[-1] if fitting else []


def layer_lists(inventory: Inventory) -> list[list[str]]:
    """Runs of numbered modules that do not lie inside another numbered module: layers, not experts."""
    found: list[list[str]] = []
    for path in inventory.modules:
        if any(part.isdecimal() for part in path.split(".")):
            continue
        numbered = [child for child in inventory.children[path] if child.rpartition(".")[2].isdecimal()]
        if len(numbered) > 1 or (numbered and path.rpartition(".")[2] in {"layers", "h", "block", "layer"}):
            found.append(numbered)
    return found


def _first_atoms(atoms: Sequence[Atom], layers: Sequence[str]) -> dict[str, int]:
    """Return for each layer the atom that carries its charge: its attention's first, else its first."""
    wanted = set(layers)
    first: dict[str, int] = {}
    attention: dict[str, int] = {}
    for at, atom in enumerate(atoms):
        path = atom.path
        while path and path not in wanted:
            path = path.rpartition(".")[0]
        if not path:
            continue
        first.setdefault(path, at)
        if "att" in atom.path[len(path) :].lower():
            attention.setdefault(path, at)
    return {**first, **attention}


def per_device(charge: WorkloadCharge, members: Sequence[int]) -> tuple[int, str]:
    """Return the bytes of one charge over some atoms, and the sum in words."""
    amounts = [charge.by_atom[at] for at in members if at in charge.by_atom]
    if charge.follows_home or not charge.is_by_layer:
        return sum(amounts), charge.arithmetic
    each = sorted(set(amounts))
    sizes = (
        format_bytes(each[0])
        if len(each) == 1
        else f"{format_bytes(each[0])} to {format_bytes(each[-1])}"
        if each
        else ""
    )
    return sum(amounts), f"{len(amounts)} layers x {sizes} ({charge.arithmetic})"
