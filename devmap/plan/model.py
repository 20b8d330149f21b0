"""The resolved result: where everything lives and runs, against which budgets, and why. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.values.device import Device

__all__ = ["Charge", "DeviceUse", "Pipeline", "Placement", "Plan", "Stage", "TiedCopy"]


class Placement(NamedTuple):
    """One atom: where its bytes live, and where its kernels run.

    A named tuple, since plans have 10^5 of them.
    """

    path: str
    home: Device
    executes_on: Device
    """The home, unless the atom is streamed from cpu or disk to an accelerator (or from disk to cpu)."""
    nbytes: int
    """Bytes at the run dtype that this atom owns; 0 where all of it is tied to an earlier atom."""
    resident_buffer_bytes: int = 0
    """Of `nbytes`, the buffers of a streamed atom that stay on `executes_on` and are not held at `home`."""

    @property
    def home_bytes(self) -> int:
        """Bytes that `home` holds."""
        return self.nbytes - self.resident_buffer_bytes

    @property
    def is_streamed(self) -> bool:
        """Whether its bytes are copied into a slot for the time of its forward."""
        return self.home != self.executes_on


@dataclass(frozen=True, slots=True)
class Charge:
    """One reason why bytes of a device are not there for weights, with the arithmetic in words."""

    what: str
    """A word for tables: `headroom`, `kv cache`, `activations`, `gradients`, `optimizer`, `slots`."""
    nbytes: int
    arithmetic: str = ""
    """How the number came about: `2 slots x 218.1 MB`."""


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """What a plan does with one device, in bytes."""

    device: Device
    capacity_bytes: int | None
    """What `max_memory` or the machine says; None for a disk without a limit."""
    weight_bytes: int
    """Weights that live here."""
    charges: tuple[Charge, ...] = ()

    @property
    def reserved_bytes(self) -> int:
        """Everything but weights: headroom, workload, slots."""
        return sum(charge.nbytes for charge in self.charges)

    @property
    def free_bytes(self) -> int | None:
        """What nothing uses; None for a disk without a limit."""
        return (
            None
            if self.capacity_bytes is None
            else self.capacity_bytes - self.weight_bytes - self.reserved_bytes
        )


@dataclass(frozen=True, slots=True)
class TiedCopy:
    """A tied tensor that lies on a second device too, because the config pins its modules apart."""

    tensor: str
    """The name under which the second device holds it."""
    original: str
    """The first name of its tie group."""
    device: Device
    nbytes: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One accelerator's part of a pipeline over several nodes; one process, or rank, runs it."""

    index: int
    """Its place in the pipeline, from 0."""
    device: Device
    """The accelerator that executes it, with its node."""
    spans: tuple[tuple[int, int], ...]
    """Its placements, as the number of the first and of the one after the last; mostly a single span."""
    border_bytes: int = 0
    """What it sends to the next stage for one microbatch; 0 for the last."""
    seconds: float | None = None
    """Of one microbatch, computing and streaming; None where the rates are not known."""
    transfer_seconds: float | None = None
    """Of what it sends for one microbatch; None where the rates are not known."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its placements in the plan, span after span."""
        return tuple(at for start, end in self.spans for at in range(start, end))

    @property
    def node(self) -> str:
        """The name of its node."""
        assert self.device.node is not None
        return self.device.node


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How a plan over several nodes runs: its stages in order, and how a step goes through them."""

    stages: tuple[Stage, ...]
    schedule: str
    microbatches: int
    tokens: int
    """Tokens of one step, over all microbatches: one of each sequence where a model generates text."""
    bubble: float
    """The share of a step for which a stage waits for others, were all stages and borders alike."""
    step_seconds: float | None = None
    """Of one step over all microbatches; None where the rates are not known."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that have a stage, in order."""
        return tuple(dict.fromkeys(stage.node for stage in self.stages))

    @property
    def tokens_per_second(self) -> float | None:
        """What a step's time comes to; None where it is not known."""
        return self.tokens / self.step_seconds if self.step_seconds else None


@dataclass(frozen=True)
class Plan:
    """A concrete plan.

    `placements` are in the model's order and cover every tensor; `device_map` is the same, folded.
    """

    device_map: Mapping[str, int | str]
    """As accelerate and transformers use it: module or tensor path to an index, `cpu` or `disk`; longest
    prefix wins."""
    placements: tuple[Placement, ...]
    devices: tuple[DeviceUse, ...]
    """In tier order; every device that was offered, used or not."""
    strategy: str
    """What was asked: a strategy's name, or `manual`."""
    dtype: str | None = None
    """The run dtype; None where each tensor keeps the checkpoint's."""
    no_split_module_classes: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    tied_copies: tuple[TiedCopy, ...] = ()
    """One for each further device that holds a tied tensor."""
    reasons: tuple[str, ...] = ()
    """Sentences: what the strategy aimed at and reached, what binds, what streams where."""
    backends: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    """The torch device type of accelerators for which the config named one: `{0: "cuda"}`."""
    offload_buffers: bool = False
    host_memory_bytes: int = 4_000_000_000
    offload_folder: str | None = None
    predicted_seconds: float | None = None
    """Of one pass, where the machine's rates are known."""
    bound_seconds: float | None = None
    """What no placement on that machine can beat."""
    inventory_fingerprint: str = ""
    config_fingerprint: str = ""
    pipeline: Pipeline | None = None
    """Its stages, where it is for several nodes; every device then carries its node's name."""

    def bytes_of(self, stage: Stage) -> int:
        """Return the bytes that the modules of a stage own, wherever they live."""
        return sum(self.placements[at].nbytes for at in stage.numbers)

    @property
    def streamed(self) -> tuple[Placement, ...]:
        """The placements whose bytes move in each pass, in the model's order."""
        return tuple(placement for placement in self.placements if placement.is_streamed)

    def use_of(self, device: Device) -> DeviceUse | None:
        """Return the figures of one device; None if it was not offered."""
        return next((use for use in self.devices if use.device == device), None)
