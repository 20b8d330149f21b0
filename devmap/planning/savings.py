"""What a plan that spills would save if the weights were quantised while they are loaded, each way tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.model.quantization_settings import QuantizationSettings
from devmap.config.values.device import device_names
from devmap.config.values.size import format_bytes
from devmap.config.values.strategy import QuantizationMethod, WorkloadKind
from devmap.errors import DevmapError, QuantizationError
from devmap.inventory.quantizing import quantized
from devmap.planning.resolve import resolve
from devmap.planning.stages.cluster import is_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.model.placement_config import MachineProfile, PlacementConfig
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.plan.model import Plan

__all__ = ["Saving", "savings"]

_METHODS = (
    QuantizationMethod.INT8,
    QuantizationMethod.FP8,
    QuantizationMethod.NF4,
    QuantizationMethod.FP4,
)
"""What devmap.load quantises to, the most bits first."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A quantization, and the plan that the same config has with it."""

    methods: tuple[QuantizationMethod, ...]
    """Words for `model.quantization` that make as many bytes."""
    nbytes: int
    """Bytes of the model's weights then."""
    devices: tuple[Device, ...]
    """Where weights then lie."""
    streamed_bytes: int
    """Bytes that then move in each pass."""
    streamed_bytes_before: int
    """Bytes that move in each pass of the plan as it is."""

    @property
    def sentence(self) -> str:
        """What it would change, for people."""
        what = " or ".join(self.methods)
        if not self.streamed_bytes:
            return f"{what}: {format_bytes(self.nbytes)}, fits on {device_names(self.devices)}"
        return (
            f"{what}: {format_bytes(self.nbytes)}, streams {format_bytes(self.streamed_bytes)} in each pass "
            f"instead of {format_bytes(self.streamed_bytes_before)}"
        )


def savings(
    config: PlacementConfig, inventory: Inventory, plan: Plan, *, machine: MachineProfile | None = None
) -> tuple[Saving, ...]:
    """Return what each quantization would change about a plan that streams, the most bits first.

    None where nothing streams, the model is trained, or how its weights are loaded is settled already. Each
    number of bytes is planned with once.
    """
    source, workload = config.model, config.workload
    settled = source.quantization is not None or source.dequantize or source.factory is not None
    trains = workload is not None and workload.kind is WorkloadKind.TRAINING
    if not plan.streamed or settled or trains or config.components or is_cluster(config, machine):
        return ()
    return tuple(_tried(config, inventory, plan, machine))


def _tried(
    config: PlacementConfig, inventory: Inventory, plan: Plan, machine: MachineProfile | None
) -> Iterator[Saving]:
    before = _streamed_bytes(plan)
    by_bytes: dict[int, list[Inventory]] = {}
    for method in _METHODS:
        try:
            found = quantized(inventory, QuantizationSettings(method=method), dtype=config.model.dtype)
        except QuantizationError:  # torchao has no rule for GPT-2's layers, for example
            continue
        by_bytes.setdefault(found.nbytes, []).append(found)
    for alike in by_bytes.values():
        settings = [found.quantized_by for found in alike if found.quantized_by is not None]
        source = config.model.model_copy(update={"quantization": settings[0]})
        try:
            changed = resolve(config.model_copy(update={"model": source}), alike[0], machine=machine)
        except DevmapError:  # a map whose keys name whole weights
            continue
        yield Saving(
            tuple(each.chosen for each in settings),
            sum(placement.nbytes for placement in changed.placements),
            tuple(use.device for use in changed.devices if use.weight_bytes),
            _streamed_bytes(changed),
            before,
        )


def _streamed_bytes(plan: Plan) -> int:
    return sum(placement.home_bytes for placement in plan.streamed)
