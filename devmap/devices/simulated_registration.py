"""Teach torch the device type `sim`, once a process.

It stays known afterwards, with no devices outside of a context.

torch lends one name, `PrivateUse1`, to backends from outside; a process that uses it otherwise cannot
simulate.
"""

from __future__ import annotations

import threading
import types
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import backend_registration

from devmap.devices.simulated_machine import active_machine, require_machine
from devmap.devices.simulated_tensor import SimulatedTensor, run_operation, simulated
from devmap.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SIM", "register"]

SIM = "sim"
"""torch's name for simulated devices."""

_lock = threading.Lock()
_libraries: list[torch.library.Library] = []
"""Kernels live as long as these do."""


def register() -> None:
    """Make `torch.device("sim:0")` known. Calls after the first do nothing.

    Raises:
        DeviceError: when something else in this process has taken torch's one name for outside backends.
    """
    with _lock:
        if _libraries:
            return
        taken = torch._C._get_privateuse1_backend_name()  # noqa: SLF001 - torch has no public way
        if taken not in {"privateuseone", SIM}:
            raise DeviceError(
                f"simulated devices need torch's PrivateUse1 backend, which this process uses for '{taken}'",
                help="simulate in a process of its own",
            )
        # Torch has no public way.
        backend_registration._setup_privateuseone_for_python_backend(SIM, backend_module=_device_module())  # noqa: SLF001
        library: Any = torch.library.Library  # torch does not annotate its methods
        factories = library("aten", "IMPL")
        factories.impl("empty.memory_format", _empty, "PrivateUse1")
        factories.impl("empty_strided", _empty_strided, "PrivateUse1")
        factories.impl("_copy_from", _copy_from, "PrivateUse1")
        factories.impl("_local_scalar_dense", _number, "PrivateUse1")
        factories.impl("scaled_dot_product_attention", _attention, "AutogradPrivateUse1")
        others = library("_", "IMPL")
        others.fallback(_without_kernel, "PrivateUse1")
        _libraries.extend((factories, others))


def _device_module() -> types.ModuleType:
    """Return what `torch.sim` is: the functions that torch and transformers ask of a device type."""
    module = types.ModuleType(f"torch.{SIM}", "Simulated devices of devmap.")

    def current_device() -> int:
        machine = active_machine()
        return machine.current_index if machine is not None else 0

    def device_count() -> int:
        machine = active_machine()
        return max(machine.devices) + 1 if machine is not None else 0

    def set_device(device: torch.device | int | str) -> None:
        index = device if isinstance(device, int) else torch.device(device).index
        require_machine().current_index = require_machine().device(index).index

    def synchronize(device: object = None) -> None:  # noqa: ARG001 - torch's signature
        require_machine().clock.synchronize()

    members: dict[str, Any] = {
        "current_device": current_device,
        "device_count": device_count,
        "set_device": set_device,
        "synchronize": synchronize,
        "is_available": lambda: active_machine() is not None,
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "manual_seed": lambda seed: None,  # noqa: ARG005 - numbers come from the CPU's generator
        "manual_seed_all": lambda seed: None,  # noqa: ARG005 - numbers come from the CPU's generator
        "empty_cache": lambda: None,
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }
    for name, member in members.items():
        setattr(module, name, member)
    return module


def _empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,  # noqa: ARG001 - the operator's schema
    device: torch.device | None = None,
    pin_memory: bool | None = None,  # noqa: ARG001 - the operator's schema
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    home = require_machine().device(None if device is None else device.index)
    raw = torch.empty(size, dtype=dtype, device="cpu", memory_format=memory_format or torch.contiguous_format)
    return simulated(raw, home)


def _empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    layout: torch.layout | None = None,  # noqa: ARG001 - the operator's schema
    device: torch.device | None = None,
    pin_memory: bool | None = None,  # noqa: ARG001 - the operator's schema
) -> torch.Tensor:
    home = require_machine().device(None if device is None else device.index)
    return simulated(torch.empty_strided(size, stride, dtype=dtype, device="cpu"), home)


# The operator's schema.
def _copy_from(source: torch.Tensor, destination: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:  # noqa: ARG001
    """Return what `copy_` becomes where torch has put subclasses aside.

    As `torch.tensor(..., device="sim:0")` does.
    """
    run_operation(torch.ops.aten.copy_.default, (destination, source), {})
    return destination


def _number(tensor: torch.Tensor) -> Any:
    """Return the number of one element, where torch has put subclasses aside.

    `torch.tensor([a, b])` of such tensors.
    """
    assert isinstance(tensor, SimulatedTensor)
    return tensor.raw.item()


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention by the kernel that the CPU would take, so that results equal the CPU's bit for bit.

    torch would pick its kernel by the device and fall back to plain matrix products. Where a gradient is
    needed it still
    does: the CPU's fused kernel has no backward that can be reached from here.
    """
    attention = torch.ops.aten.scaled_dot_product_attention.default
    arguments = (query, key, value, attn_mask, dropout_p, is_causal)
    options = {"scale": scale, "enable_gqa": enable_gqa}
    result: torch.Tensor
    if not isinstance(
        query, SimulatedTensor
    ):  # a fake tensor has no numbers: what counts is what a fused kernel leaves in memory
        devices = {str(tensor.device) for tensor in arguments if isinstance(tensor, torch.Tensor)}
        if len(devices) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found "
                f"{' and '.join(sorted(devices))}, in {attention}"
            )
        result = query.new_empty((*query.shape[:-1], value.shape[-1]))
    elif torch.is_grad_enabled() and any(
        isinstance(tensor, torch.Tensor) and tensor.requires_grad for tensor in arguments
    ):
        result = attention.decompose(*arguments, **options)
    else:
        result = run_operation(attention, arguments, options)
    return result


def _without_kernel(operation: torch._ops.OpOverload[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return every other operation that reaches the device itself: factories such as `tril_indices`."""
    return run_operation(operation, args, kwargs)
