"""The resolved result: where everything lives and runs, against which budgets, and why. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.config.values.device import Device

__all__ = ["Charge", "DeviceUse", "Placement", "Plan", "TiedCopy"]


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

    @property
    def streamed(self) -> tuple[Placement, ...]:
        """The placements whose bytes move in each pass, in the model's order."""
        return tuple(placement for placement in self.placements if placement.is_streamed)

    def use_of(self, device: Device) -> DeviceUse | None:
        """Return the figures of one device; None if it was not offered."""
        return next((use for use in self.devices if use.device == device), None)
