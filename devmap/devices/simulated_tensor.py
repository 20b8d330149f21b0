"""Tensors on simulated devices: real numbers in host memory behind a tensor that says `sim:0`.

`SimulatedTensor` wraps a CPU tensor. Every operation on it comes to `__torch_dispatch__` below autograd, is
checked for mixed devices as a real device would, runs on the wrapped tensors and is wrapped again. Source of
the approach: PyTorch's test/test_privateuseone_python_backend.py.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from devmap.devices.simulated_kernels import KERNELS
from devmap.devices.simulated_machine import SimulatedDevice, require_machine
from devmap.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["SimulatedTensor", "run_operation", "simulated"]

_ANY_DEVICE = frozenset({"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::_copy_from_and_resize"})
"""Operations that exist to cross devices."""
_HOST_INDICES = frozenset(
    {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
)
"""Operations whose index tensors may be on the CPU, as on CUDA."""

_WHOLE = frozenset({"aten::scaled_dot_product_attention", "aten::_has_compatible_shallow_copy_type"})
"""Composite operations that must not be taken apart: they ask the device which way to go."""


class SimulatedTensor(torch.Tensor):
    """A tensor on `sim:n`; `raw` is the CPU tensor with its numbers.

    `home` the device whose ledger counts it.
    """

    raw: torch.Tensor
    home: SimulatedDevice

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares this one as an instance method
        cls,
        operation: torch._ops.OpOverload[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if any(getattr(kind, "takes_over", False) for kind in types):
            return NotImplemented  # tensors of several processes decide where an operation is done
        if _is_composite(
            operation
        ):  # in inference mode these come here whole, with devices among their arguments
            return operation.decompose(*args, **(kwargs or {}))
        return run_operation(operation, args, kwargs or {})

    # Torch has no public way.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001

    @property
    def _is_param(self) -> bool:
        return bool(self.__dict__.get("_is_param"))

    @_is_param.setter
    def _is_param(self, value: bool) -> None:
        """`nn.Parameter` sets this: the storage belongs to a weight from now on."""
        if value:
            self.home.ledger.count(self.raw.untyped_storage(), held=True)
        self.__dict__["_is_param"] = value

    @property
    def data(self) -> torch.Tensor:
        """The same numbers outside of autograd."""
        return self.detach()

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        """`nn.Module.to` assigns this.

        Torch swaps what it knows of the tensor, so the numbers have to go along.
        """
        if not isinstance(other, SimulatedTensor):
            raise TypeError(
                f"the data of a tensor on {self.device} cannot be set to one on {other.device}; make a "
                f"new parameter"
            )
        if self._is_param:
            other.home.ledger.count(other.raw.untyped_storage(), held=True)
        _set_metadata(self, other)
        self.raw, self.home = other.raw, other.home

    def data_ptr(self) -> int:
        """Return the address in host memory: equal for tensors that share bytes."""
        return self.raw.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return the storage in host memory: one object for tensors that share bytes."""
        return self.raw.untyped_storage()

    def __format__(self, specification: str) -> str:
        """Format its number, as every tensor without dimensions does; any other as it is shown."""
        shown: object = self.raw.item() if self.dim() == 0 else str(self)
        return format(shown, specification)

    def tolist(self) -> Any:
        """Return the numbers as Python lists."""
        return self.raw.tolist()

    # the rest is passed on
    def new_tensor(self, values: Any, **options: Any) -> torch.Tensor:  # type: ignore[override]
        """Do what torch's own does, on this tensor's device instead of the current one."""
        return torch.tensor(values, **{"dtype": self.dtype, "device": self.device, **options})

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse, as every accelerator does, unless a copy is asked for."""
        if not force:
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the "
                f"tensor to host memory first."
            )
        return self.detach().cpu().numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> SimulatedTensor:
        if id(self) in memo:
            found: SimulatedTensor = memo[id(self)]
            return found
        if not self.is_leaf:
            raise RuntimeError(
                "only tensors that the user made can be copied deeply, not results of operations under "
                "autograd"
            )
        copy = simulated(self.raw.clone(), self.home)
        copy.requires_grad_(self.requires_grad)
        if self._is_param:
            copy._is_param = True  # noqa: SLF001 - the name that torch gives it
        memo[id(self)] = copy
        return copy

    # torch's is not annotated
    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"{self.raw!r} on {self.device}"


def simulated(raw: torch.Tensor, home: SimulatedDevice, *, held: bool = False) -> SimulatedTensor:
    """Wrap a CPU tensor that nothing else uses; its storage counts in the device's ledger.

    Raises:
        OutOfMemoryError: when its storage is new to the ledger and past the budget.
    """
    home.ledger.count(raw.untyped_storage(), held=held)
    tensor: SimulatedTensor = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - torch has no public way
        SimulatedTensor,
        raw.shape,
        strides=raw.stride(),
        storage_offset=raw.storage_offset(),
        dtype=raw.dtype,
        layout=raw.layout,
        device=torch.device("sim", home.index),
    )
    tensor.raw, tensor.home = raw, home
    return tensor


@cache
def _is_composite(operation: torch._ops.OpOverload[..., Any]) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd  # noqa: SLF001 - torch has no public way
    # Torch has no public way.
    return operation.has_kernel_for_dispatch_key(key) and operation._schema.name not in _WHOLE  # noqa: SLF001


def _set_metadata(tensor: torch.Tensor, other: torch.Tensor) -> None:
    """Torch's own setter of `data`: shape, strides, dtype and device of a tensor become another's."""
    # a descriptor that torch does not declare
    torch.Tensor.data.__set__(tensor, other)  # type: ignore[attr-defined]


def run_operation(
    operation: torch._ops.OpOverload[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Run an operation on the numbers behind simulated tensors.

    Raises:
        RuntimeError: when its tensors are on different devices.
        DeviceError: when one outlived its context.
        OutOfMemoryError: when its result is past the device's budget.
    """
    call = _Call(operation)
    raw_args = [call.unwrap(value) for value in args]
    raw_kwargs = {name: call.unwrap(value) for name, value in kwargs.items()}
    name = operation._schema.name  # noqa: SLF001 - torch has no public way
    if name == "aten::_has_compatible_shallow_copy_type":
        return not call.plain  # the numbers of both are on the CPU: torch's own answer would be wrong
    if name in _HOST_INDICES:
        call.forget_host_indices(args[1])
    home = call.home(name)
    device = kwargs.get("device")
    if device is not None:
        device = torch.device(device)
        home = require_machine().device(device.index) if device.type == "sim" else None
        raw_kwargs["device"] = torch.device("cpu") if home is not None else device
    if not operation.is_view:
        call.note_kernels()
    result = KERNELS.get(name, operation)(*raw_args, **raw_kwargs)
    if operation._schema.is_mutable:  # noqa: SLF001 - torch has no public way
        call.refresh()
    return call.wrap(result, home)


class _Call:
    """One operation's arguments: what wraps what, and on which devices."""

    def __init__(self, operation: torch._ops.OpOverload[..., Any]) -> None:
        self.operation = operation
        self.wrappers: dict[int, SimulatedTensor] = {}
        self.plain: dict[int, torch.Tensor] = {}

    def unwrap(self, value: Any) -> Any:
        if isinstance(value, SimulatedTensor):
            raw = value.raw
            self.wrappers[id(raw)] = value
            return raw
        if isinstance(value, torch.Tensor):
            self.plain[id(value)] = value
            return value
        if isinstance(value, list | tuple):
            return type(value)([self.unwrap(item) for item in value])
        return value

    def wrap(self, value: Any, home: SimulatedDevice | None) -> Any:
        if isinstance(value, torch.Tensor):
            known = self.wrappers.get(id(value))
            if known is not None:
                return known
            return value if home is None or id(value) in self.plain else simulated(value, home)
        if isinstance(value, list | tuple):
            return type(value)([self.wrap(item, home) for item in value])
        return value

    def home(self, name: str) -> SimulatedDevice | None:
        """Return the one device that all tensors are on.

        CPU numbers without dimensions may join, as on CUDA.
        """
        homes = {wrapper.home.index: wrapper.home for wrapper in self.wrappers.values()}
        for index, found in homes.items():
            if not found.is_open:
                raise DeviceError(
                    f"a tensor of sim:{index} is used after its `simulated_devices` context has ended"
                )
        if name not in _ANY_DEVICE:
            on_host = any(tensor.dim() for tensor in self.plain.values() if tensor.device.type == "cpu")
            if len(homes) + on_host > 1:
                names = sorted(found.name for found in homes.values()) + ["cpu"] * on_host
                found_on = " and ".join(names)
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two devices, "
                    f"{found_on}, in {self.operation}"
                )
        return next(iter(homes.values()), None)

    def forget_host_indices(self, indices: Sequence[torch.Tensor | None]) -> None:
        """Index tensors on the CPU are taken to the device, as on CUDA."""
        for index in indices:
            self.plain.pop(id(index), None)

    def note_kernels(self) -> None:
        """Tell the devices which slabs this operation reads or writes."""
        for wrapper in self.wrappers.values():
            if wrapper.home.last_kernel:
                wrapper.home.note_kernel(wrapper.raw.untyped_storage())

    def refresh(self) -> None:
        """Give wrappers whose numbers were reshaped in place (`out=`, `resize_`, `t_`) the new shape."""
        for wrapper in self.wrappers.values():
            raw = wrapper.raw
            if (
                wrapper.shape != raw.shape
                or wrapper.stride() != raw.stride()
                or wrapper.storage_offset() != raw.storage_offset()
            ):
                _set_metadata(wrapper, simulated(raw, wrapper.home))
