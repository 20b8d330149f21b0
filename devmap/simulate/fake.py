"""One forward pass over fake tensors.

Shapes, dtypes and devices are real, numbers are not, so a 70B model takes seconds.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from devmap.devices.simulated_ledger import Ledger
from devmap.devices.simulated_registration import register
from devmap.simulate.inputs import made_up_inputs
from devmap.simulate.placing import executing_devices, placement_of, torch_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from devmap.config.values.device import Device
    from devmap.plan.model import Plan

__all__ = ["SimulatedUse", "Simulation", "simulate"]

# An operation's name, not a private member.
_GROUPED_PRODUCTS = torch.ops.aten._grouped_mm.default  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class SimulatedUse:
    """What one forward pass took of a device, in bytes."""

    device: Device
    weight_bytes: int
    """Weights and buffers that live here."""
    slot_bytes: int
    """Room that the plan keeps for streamed blocks."""
    activation_bytes: int
    """The most that everything else took at one time: inputs, results, the KV cache."""
    capacity_bytes: int | None
    """The plan's limit; None where it has none."""

    @property
    def peak_bytes(self) -> int:
        """All of it together."""
        return self.weight_bytes + self.slot_bytes + self.activation_bytes

    @property
    def fits(self) -> bool:
        """Whether the peak stays within the limit."""
        return self.capacity_bytes is None or self.peak_bytes <= self.capacity_bytes


@dataclass(frozen=True)
class Simulation:
    """What one forward pass would do."""

    devices: Mapping[Device, SimulatedUse]
    """In the plan's order."""
    predicted_seconds: float | None
    """The plan's prediction for one pass; None where the machine's rates are not known."""
    modules: tuple[str, ...] = ()
    """The placed modules in the order in which the pass called them, a last entry for what came after them.
    """
    activation_curves: Mapping[Device, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """For each device that computes, the most bytes of activations while each of `modules` ran."""

    @property
    def fits(self) -> bool:
        """Whether every device stays within its limit."""
        return all(use.fits for use in self.devices.values())


def simulate(
    model: nn.Module,
    plan: Plan,
    *,
    batch_size: int = 1,
    sequence_length: int = 2048,
    inputs: Mapping[str, Any] | None = None,
) -> Simulation:
    """Run a plan over fake tensors and count the bytes that live on each device.

    `model` may be on the meta device, and is the same afterwards. Streamed blocks take the slots that the
    plan reserved. `inputs` are the forward's keyword arguments (only their shapes and dtypes count); by
    default what the model says that it takes, `batch_size` sequences of `sequence_length` tokens. The KV
    cache of the pass counts among the activations.

    Raises:
        UsageError: when the model does not say what input it takes.
        RuntimeError: torch's, when an operation gets tensors of two devices: a weight is used outside of its
            module's forward.
    """
    register()
    ledgers = {use.device: Ledger(str(use.device), 1 << 63) for use in plan.devices}
    computing = {
        device: ledger for device, ledger in ledgers.items() if device.is_accelerator or device.plain == "cpu"
    }
    counted = {torch_device(device): ledger for device, ledger in computing.items()}
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        weights, weight_bytes = _fake_weights(model, plan)
        start = torch_device(plan.placements[0].executes_on) if plan.placements else torch.device("cpu")
        recorder = _PeakRecorder(computing)
        with (
            _lifted_constants(),
            _moved_inputs(model, plan),
            recorder.watching(model, plan),
            _Counting(counted, weights),
        ):
            made = (
                inputs
                if inputs is not None
                else made_up_inputs(
                    model, batch_size=batch_size, sequence_length=sequence_length, device=start
                )
            )
            made = tree_map_only(
                torch.Tensor, lambda tensor: torch.empty_like(tensor, device=start), dict(made)
            )
            torch.func.functional_call(model, weights, kwargs=made)
            recorder.note("after the last module")
    uses = {
        use.device: SimulatedUse(
            use.device,
            weight_bytes.get(use.device, 0),
            sum(charge.nbytes for charge in use.charges if charge.what == "slots"),
            max(recorder.peaks.get(use.device, ()), default=0),
            use.capacity_bytes,
        )
        for use in plan.devices
    }
    curves = {device: tuple(peaks) for device, peaks in recorder.peaks.items()}
    return Simulation(
        MappingProxyType(uses), plan.predicted_seconds, tuple(recorder.modules), MappingProxyType(curves)
    )


def _fake_weights(model: nn.Module, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[Device, int]]:
    """Return a fake tensor for each parameter and buffer on the device that executes it.

    And the bytes of their homes.
    """
    placements = {placement.path: placement for placement in plan.placements}
    first = plan.placements[0] if plan.placements else None
    weights: dict[str, torch.Tensor] = {}
    weight_bytes: dict[Device, int] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        placement = placement_of(name, placements) or first
        if placement is None:
            continue
        dtype = getattr(torch, plan.dtype) if plan.dtype and _follows_run_dtype(tensor) else tensor.dtype
        weights[name] = torch.empty(tensor.shape, dtype=dtype, device=torch_device(placement.executes_on))
        weight_bytes[placement.home] = weight_bytes.get(placement.home, 0) + weights[name].nbytes
    return weights, weight_bytes


def _follows_run_dtype(tensor: torch.Tensor) -> bool:
    wide = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    return isinstance(tensor, torch.nn.Parameter) and tensor.dtype in wide


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
    """Counts the storages of every result, from its making to its collection. Weights are not results."""

    def __init__(self, ledgers: Mapping[torch.device, Ledger], weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.ledgers = ledgers
        self.weights = {id(tensor.untyped_storage()) for tensor in weights.values()}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation is _GROUPED_PRODUCTS and args[0].dtype is not torch.bfloat16:
            result = _grouped_products(*args)
        else:
            result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                ledger = self.ledgers.get(tensor.device)
                storage = tensor.untyped_storage()
                if ledger is not None and id(storage) not in self.weights:
                    ledger.count(storage)
        return result


class _PeakRecorder:
    """The peak of each ledger while each placed module ran.

    From the end of the one before it to its own end.
    """

    def __init__(self, ledgers: Mapping[Device, Ledger]) -> None:
        self.ledgers = ledgers
        self.modules: list[str] = []
        self.peaks: dict[Device, list[int]] = {device: [] for device in ledgers}

    @contextmanager
    def watching(self, model: nn.Module, plan: Plan) -> Iterator[None]:
        """Note the peaks after every placed module's forward."""

        def after(path: str) -> Any:
            return lambda *_: self.note(path)

        with ExitStack() as stack:
            for path in executing_devices(model, plan):
                handle = model.get_submodule(path).register_forward_hook(after(path))
                stack.callback(handle.remove)
            yield

    def note(self, path: str) -> None:
        """Write down the peaks since the last note, and begin the next from what is held now."""
        self.modules.append(path)
        for device, ledger in self.ledgers.items():
            self.peaks[device].append(ledger.peak_bytes)
            ledger.reset_peaks()


def _grouped_products(left: torch.Tensor, right: torch.Tensor, *rest: Any) -> torch.Tensor:
    """Grouped products of other dtypes.

    Torch's shape function knows bfloat16 alone, its kernels know more.
    """
    halves = (left.to(torch.bfloat16), right.to(torch.bfloat16))
    result: torch.Tensor = _GROUPED_PRODUCTS(*halves, *rest).to(left.dtype)
    return result


@contextmanager
def _moved_inputs(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Hooks that bring a placed module's input to the device that executes it."""

    def bring(device: torch.device) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
            return tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), (args, kwargs))

        return hook

    with ExitStack() as stack:
        for path, device in executing_devices(model, plan).items():
            handle = model.get_submodule(path).register_forward_pre_hook(bring(device), with_kwargs=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def _lifted_constants() -> Iterator[None]:
    """`torch.tensor(..., device="sim:0")` makes its numbers on the CPU first.

    And the fake mode then moves them.
    """
    binding: Any = torch._C  # noqa: SLF001 - torch has no public way
    before = binding._only_lift_cpu_tensors()  # noqa: SLF001 - the same
    binding._set_only_lift_cpu_tensors(True)  # noqa: SLF001 - the same
    try:
        yield
    finally:
        binding._set_only_lift_cpu_tensors(before)  # noqa: SLF001 - the same
