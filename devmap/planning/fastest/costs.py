"""What one forward pass asks of each device for each atom: arithmetic, reads, copies.

And how long each takes there.

Of one pass, for `batch` sequences of `tokens` tokens each:

- A parameter of p elements multiplies 2 x p x batch x tokens numbers. Attention's own products and the reads
  of the KV cache are not
  counted: they do not depend on where the weights live.
- Kernels read each weight once. An embedding reads as many rows as there are tokens. Of E experts of which
  each token picks k, a pass over T tokens reads 1 - (1 - k / E)^T of them (all choices equally likely; for
  one token that is k / E).
- A streamed atom is copied whole, into a slot; an atom that lies inside one expert only as often as that
  expert is picked.
- Computing takes max(bytes read / memory bandwidth, operations / rate of their dtype), the roofline model: S.
  Williams, A. Waterman, D. Patterson, "Roofline", CACM 52 (2009).

Times are whole femtoseconds: sums are exact and the same on every platform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import CPU, DISK, device_name
from devmap.config.values.strategy import WorkloadKind
from devmap.inventory.dtypes import element_bits, run_dtype, storage_bytes
from devmap.planning.problem.kv_cache import figure

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from devmap.config.model.placement_config import MachineDevice, MachineProfile, Workload
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory, TensorKind
    from devmap.planning.problem.model import PlacementProblem

__all__ = ["FEMTOSECONDS", "PassCosts", "PassShape", "costs_of", "missing_rates"]

FEMTOSECONDS = 10**15
_DEFAULT_LENGTH = 2048
_HALF = ("bfloat16", "float16")
_GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass(frozen=True, slots=True)
class PassShape:
    """How much one pass computes."""

    batch: int = 1
    tokens: int = 1
    """Of each sequence."""

    @classmethod
    def of(cls, workload: Workload | None, inventory: Inventory) -> PassShape:
        """Return one decoding step for a model that generates text, and where nothing is known.

        Else, and in training, the whole sequence.
        """
        batch = 1 if workload is None else workload.batch_size
        architecture = inventory.architecture
        training = workload is not None and workload.kind is WorkloadKind.TRAINING
        if not training and (architecture is None or architecture.class_name.endswith(_GENERATES)):
            return cls(batch)
        limit = (
            figure(architecture, "max_target_positions", "max_position_embeddings", "n_positions")
            if architecture
            else 0
        )
        asked = workload.sequence_length if workload is not None else None
        return cls(batch, asked or min(_DEFAULT_LENGTH, limit or _DEFAULT_LENGTH))

    @property
    def rows(self) -> int:
        """Tokens of all sequences together."""
        return self.batch * self.tokens

    def __str__(self) -> str:
        tokens = f"{self.tokens:,} token{'s' if self.tokens > 1 else ''}"
        return tokens if self.batch == 1 else f"{tokens}, batch {self.batch:,}"


@dataclass(frozen=True)
class PassCosts:
    """Femtoseconds of each atom by its place in the order. A device whose rates are not known is absent."""

    shape: PassShape
    compute: Mapping[Device, tuple[int, ...]]
    """Where it is executed there."""
    copy: Mapping[Device, tuple[int, ...]]
    """Where it is streamed there: the copy from host memory."""
    disk: tuple[int, ...] | None
    """Where it lives on disk: the read."""
    host_copy: tuple[int, ...]
    """Of host memory's bandwidth, where it is copied to an accelerator; zeros where that rate is not known.
    """
    host_compute: tuple[int, ...]
    """Of host memory's bandwidth, where the CPU computes it."""
    boundary: Mapping[Device, int]
    """Activations moved between host memory and an accelerator once; 0 for the CPU."""


def missing_rates(machine: MachineProfile | None, offered: Collection[Device]) -> tuple[str, ...]:
    """Return the rates of offered devices that planning by time needs and the profile does not give.

    `memory_bandwidth of device 0`.
    """
    found = []
    devices = sorted(
        {*offered, CPU} if DISK in offered else set(offered)
    )  # what is on disk may be left to the CPU
    streams = any(not device.is_accelerator for device in devices)
    for device in devices:
        known = machine.devices.get(device) if machine is not None else None
        name = device_name(device)
        if device == DISK:
            wanted = ["disk"]
        else:
            wanted = ["memory_bandwidth", "flops"] + (
                ["host_to_device"] if streams and device.is_accelerator else []
            )
        found += [f"{rate} of {name}" for rate in wanted if known is None or not getattr(known, rate)]
    return tuple(found)


def costs_of(
    problem: PlacementProblem,
    inventory: Inventory,
    machine: MachineProfile,
    shape: PassShape,
    *,
    dtype: str | None,
) -> PassCosts:
    """Return the costs of every atom on every offered device.

    Linear in tensors plus atoms times kinds of devices.
    """
    works = _works(problem, inventory, shape, dtype)
    copies = _copied(problem, inventory, shape)
    computing: dict[Device, tuple[int, ...]] = {}
    copying: dict[Device, tuple[int, ...]] = {}
    alike: dict[str, tuple[tuple[int, ...] | None, tuple[int, ...] | None]] = {}
    for device in (*(budget.device for budget in problem.budgets), CPU):
        known = machine.devices.get(device)
        if known is None or device == DISK:
            continue
        key = f"{known.flops} {known.memory_bandwidth} {known.host_to_device}"
        if key not in alike:
            alike[key] = _compute_times(works, known), _times(copies, known.host_to_device)
        compute, copy = alike[key]
        if compute is not None:
            computing[device] = compute
        if copy is not None and device.is_accelerator:
            copying[device] = copy
    host = machine.devices.get(CPU)
    bandwidth = host.memory_bandwidth if host is not None else None
    disk = machine.devices.get(DISK)
    nothing = (0,) * len(problem.atoms)
    return PassCosts(
        shape,
        computing,
        copying,
        _times(copies, disk.disk) if disk is not None else None,
        _times(copies, bandwidth) or nothing,
        works.spread(
            _times([work.read_bytes for work in works.signatures], bandwidth) or (0,) * len(works.signatures)
        ),
        _boundaries(problem, inventory, machine, shape, dtype),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    read_bytes: int
    operations: tuple[tuple[str, int], ...]
    """By the dtype that they are done in."""


_Look = tuple[tuple[tuple[int, ...], str, "TensorKind", str, bool], ...]
"""Of each tensor of an atom, each tied one once: shape, dtype, kind, the class that a matrix is of, whether
it is one expert's."""


@dataclass(frozen=True, slots=True)
class _Works:
    """What all atoms ask for, by look: models have 10^5 atoms and a few looks."""

    signatures: tuple[_Work, ...]
    signature_of: tuple[int, ...]
    """For each atom the number of its look."""

    def spread(self, amounts: Sequence[int]) -> tuple[int, ...]:
        """Amounts of looks, given to atoms."""
        return tuple([amounts[signature] for signature in self.signature_of])


def _works(problem: PlacementProblem, inventory: Inventory, shape: PassShape, dtype: str | None) -> _Works:
    owner = inventory.owner
    tensors, modules = inventory.tensors, inventory.modules
    picks = _picked(inventory)
    share = _experts_read(picks, shape)
    numbers: dict[_Look, int] = {}
    signatures: list[_Work] = []
    signature_of: list[int] = []
    for atom in problem.atoms:
        names = (
            atom.tensors
            if not owner
            else tuple({owner.get(name, name): name for name in reversed(atom.tensors)}.values())[::-1]
        )
        parts = []
        for name in names:
            tensor = tensors[name]
            classes = modules[name.rpartition(".")[0]] if len(tensor.shape) == 2 else ""
            parts.append(
                (tensor.shape, tensor.dtype, tensor.kind, classes, share < 1.0 and ".experts." in name)
            )
        signature = tuple(parts)
        number = numbers.setdefault(signature, len(signatures))
        if number == len(signatures):
            signatures.append(_signature_of(signature, shape, dtype, share, picks))
        signature_of.append(number)
    return _Works(tuple(signatures), tuple(signature_of))


def _signature_of(signature: _Look, shape: PassShape, dtype: str | None, share: float, picks: float) -> _Work:
    read = 0
    operations: dict[str, int] = {}
    for size, stored, kind, class_name, in_expert in signature:
        some = (share, picks) if in_expert else (1.0, 1.0)
        nbytes, running, count = _work_of(
            (size, stored, kind), shape, dtype, some=some, is_table="Embedding" in class_name
        )
        read += nbytes
        if count:
            operations[running] = operations.get(running, 0) + count
    return _Work(read, tuple(operations.items()))


def _work_of(
    tensor: tuple[tuple[int, ...], str, TensorKind],
    shape: PassShape,
    dtype: str | None,
    *,
    some: tuple[float, float],
    is_table: bool,
) -> tuple[int, str, int]:
    """Return the bytes that are read of one tensor, the dtype that it is computed in, and the operations.

    `some` of them if it is an expert's.
    """
    size, stored, kind = tensor
    running = run_dtype(stored, dtype, kind=kind)
    if kind != "parameter":
        return storage_bytes(size, running), running, 0
    if is_table:
        return storage_bytes((min(size[0], shape.rows), size[1]), running), running, 0
    read = math.ceil(storage_bytes(size, running) * some[0])
    return read, running, math.ceil(2 * math.prod(size) * shape.rows * some[1])


def _picked(inventory: Inventory) -> float:
    """Return the share of a layer's experts that each token picks; 1 where the config does not say."""
    architecture = inventory.architecture
    if architecture is None:
        return 1.0
    experts = figure(architecture, "num_local_experts", "num_experts", "n_routed_experts")
    return min(1.0, figure(architecture, "num_experts_per_tok") / experts) or 1.0 if experts else 1.0


def _experts_read(picks: float, shape: PassShape) -> float:
    """Return the share of a layer's experts that one pass reads."""
    return 1.0 - (1.0 - picks) ** shape.rows


def _copied(problem: PlacementProblem, inventory: Inventory, shape: PassShape) -> list[int]:
    """Return the bytes that streaming an atom copies in one pass.

    Less than its slot only for what lies inside one of several experts.
    """
    share = _experts_read(_picked(inventory), shape)
    slots = problem.loads.slot
    if share == 1.0:
        return list(slots)
    return [
        math.ceil(slot * share) if _is_one_expert(atom.path) else slot
        for atom, slot in zip(problem.atoms, slots, strict=True)
    ]


def _is_one_expert(path: str) -> bool:
    _, within, rest = path.partition(".experts.")
    return bool(within) and rest.partition(".")[0].isdecimal()


def _compute_times(works: _Works, known: MachineDevice) -> tuple[int, ...] | None:
    if not known.memory_bandwidth or not known.flops:
        return None
    per_byte = FEMTOSECONDS / known.memory_bandwidth
    rates = known.flops
    times = []
    for work in works.signatures:
        products = sum(count * FEMTOSECONDS / _rate(rates, dtype) for dtype, count in work.operations)
        times.append(math.ceil(max(work.read_bytes * per_byte, products)))
    return works.spread(times)


def _rate(rates: Mapping[str, float], dtype: str) -> float:
    """Operations a second in a dtype.

    One that the profile does not list is computed as kernels do it: half precision in float32, quantised
    weights in half precision.
    """
    if dtype in rates:
        return rates[dtype]
    others = ("float32",) if dtype in {*_HALF, "float64", "float32"} else (*_HALF, "float32")
    return next((rates[other] for other in others if other in rates), max(rates.values()))


def _times(amounts: Sequence[int], rate: float | None) -> tuple[int, ...] | None:
    if not rate:
        return None
    alike = {amount: math.ceil(amount * FEMTOSECONDS / rate) for amount in set(amounts)}
    return tuple([alike[amount] for amount in amounts])


def _boundaries(
    problem: PlacementProblem,
    inventory: Inventory,
    machine: MachineProfile,
    shape: PassShape,
    dtype: str | None,
) -> dict[Device, int]:
    hidden = (
        figure(inventory.architecture, "hidden_size", "d_model", "n_embd") if inventory.architecture else 0
    )
    nbytes = hidden * shape.rows * element_bits(dtype or "bfloat16") // 8
    found = {}
    for budget in problem.budgets:
        known = machine.devices.get(budget.device)
        rate = known.host_to_device if known is not None and budget.device.is_accelerator else None
        found[budget.device] = math.ceil(nbytes * FEMTOSECONDS / rate) if rate else 0
    return found
