"""What stands in a streamed block's parameters while the block does not run.

Slots are shared: outside of its block's forward, a parameter bound to a slot would show another block's
bytes. So a module's tables hold the slot's parameters only from the block's pre-forward hook to its forward
hook, and these placeholders at all other times. A placeholder knows shape, dtype and device. An operation
that needs its numbers gets them from the weight's home, for that one operation: slow, and right. What would
be lost or wrong (a write, a storage pointer, a pickle) raises with the weight's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from devmap.errors import StreamError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["StreamedWeight"]

_KNOWN = (
    "shape",
    "dtype",
    "device",
    "layout",
    "requires_grad",
    "grad",
    "grad_fn",
    "is_leaf",
    "ndim",
    "is_meta",
    "is_cuda",
    "is_cpu",
    "is_xpu",
    "is_mps",
    "is_sparse",
    "is_sparse_csr",
    "is_quantized",
    "is_nested",
    "is_mkldnn",
    "is_vulkan",
    "is_ipu",
    "is_maia",
    "is_xla",
    "is_mtia",
    "names",
    "name",
    "itemsize",
    "nbytes",
    "retains_grad",
    "_base",
    "_version",
    "output_nr",
    "_backward_hooks",
    "_post_accumulate_grad_hooks",
)
_ASKED = (
    "size",
    "dim",
    "numel",
    "nelement",
    "ndimension",
    "stride",
    "storage_offset",
    "is_contiguous",
    "is_floating_point",
    "is_complex",
    "is_signed",
    "element_size",
    "get_device",
    "is_inference",
    "has_names",
    "_is_view",
    "__len__",
    "__hash__",
    "type_as",
    "register_hook",
    "__bool__",
    "is_shared",
    "is_pinned",
    "is_conj",
    "is_neg",
    "_is_zerotensor",
    "dim_order",
)
_METADATA = {getattr(torch.Tensor, name).__get__ for name in _KNOWN if hasattr(torch.Tensor, name)} | {
    getattr(torch.Tensor, name) for name in _ASKED if hasattr(torch.Tensor, name)
}
_METADATA -= {torch.Tensor.type_as, torch.Tensor.__bool__, torch.Tensor.register_hook}
_METADATA |= {torch.is_floating_point, torch.is_complex, torch.is_tensor, torch.numel, torch.is_inference}
_ITSELF = {torch.Tensor.detach, torch.detach, torch.Tensor.data.__get__}  # type: ignore[attr-defined]
_POINTERS = {
    torch.Tensor.data_ptr,
    torch.Tensor.untyped_storage,
    torch.Tensor.storage,
    torch.Tensor.share_memory_,
    torch.Tensor.pin_memory,
}


class StreamedWeight(torch.Tensor):
    """A parameter or buffer whose bytes are elsewhere. `weight_name` is its name in the model."""

    weight_name: str
    _fetch: Callable[[], torch.Tensor]
    _is_param: bool
    _whole: Callable[[], torch.Tensor] | None

    @staticmethod
    def __new__(
        cls: type[Self],
        name: str,
        fetch: Callable[[], torch.Tensor],
        *,
        like: torch.Tensor,
        device: torch.device,
        is_parameter: bool,
        whole: Callable[[], torch.Tensor] | None = None,
    ) -> Self:
        """Return a placeholder for `name` with the shape, strides and dtype of `like`.

        `fetch` gives its numbers on `device`; `whole` a quantised parameter on the CPU, whose own attributes
        (`quant_state`) the placeholder then shows.
        """
        placeholder: Self = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - the documented way
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=device, requires_grad=False
        )
        placeholder.weight_name = name
        placeholder._fetch = fetch
        placeholder._is_param = is_parameter  # what `isinstance(_, nn.Parameter)` looks at
        placeholder._whole = whole
        return placeholder

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __getattr__(self, name: str) -> Any:
        whole = self.__dict__.get("_whole")
        if whole is None or name.startswith("_"):
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(whole(), name)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - what torch's own subclasses use
                return func(*args, **kwargs)
        name = next(_names(args), None) or next(_names(kwargs.values()), "")
        if func in _ITSELF:
            return args[0]
        if func in _POINTERS:
            raise StreamError(
                f"'{name}' is streamed: it has no storage of its own",
                help="read it through state_dict(), or call model.devmap.remove()",
            )
        _refuse_change(func, name, (*args, *kwargs.values()))
        return _run(func, args, kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it with any mapping
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Reached only where torch goes round `__torch_function__`.

        There is no right answer here, so none is given.
        """
        name = next(_names(args), None) or next(_names((kwargs or {}).values()), "")
        raise StreamError(
            f"'{name}' is streamed and was used outside of its block's forward, by {func}",
            help="call the block's module rather than its weights, or keep this weight on a device in the "
            "device map",
        )

    # torch's own is untyped
    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return (
            f"StreamedWeight('{self.weight_name}', {tuple(self.shape)}, {self.dtype}, runs on {self.device})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> StreamedWeight:
        raise UsageError(
            f"a model with streamed weights ('{self.weight_name}') cannot be copied", help=_PLAIN_FIRST
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(
            f"a model with streamed weights ('{self.weight_name}') cannot be pickled", help=_PLAIN_FIRST
        )


_PLAIN_FIRST = "save it with save_pretrained() or state_dict(), or call model.devmap.remove() first"


def _names(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, StreamedWeight):
            yield value.weight_name
        elif isinstance(value, list | tuple):
            yield from _names(value)


def _refuse_change(func: Callable[..., Any], name: str, args: Sequence[Any]) -> None:
    word = getattr(func, "__name__", "")
    wants_gradient = (word == "requires_grad_" and (len(args) < 2 or args[1])) or (
        word == "__set__" and func == torch.Tensor.requires_grad.__set__ and args[1]  # type: ignore[attr-defined]
    )
    if wants_gradient:
        raise StreamError(
            f"'{name}' is streamed and cannot be trained: its bytes are read anew for each pass",
            help="keep it on a device in the device map, or train an adapter on top",
        )
    sets_nothing = word == "__set__" and len(args) > 1 and (args[1] is None or args[1] is False)
    # What Module.to asks first.
    if (word == "__set__" and not sets_nothing) or func is torch._has_compatible_shallow_copy_type:  # noqa: SLF001
        raise StreamError(
            f"'{name}' is streamed and cannot be replaced or moved", help="call model.devmap.remove() first"
        )


def _run(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the weights' numbers.

    Views of them become placeholders in turn, so that no write to one is lost.
    """
    if getattr(func, "__name__", "") in {"requires_grad_", "__set__"}:
        return args[0]  # what is left of these sets what is so already
    fetched: dict[int, tuple[StreamedWeight, torch.Tensor, int]] = {}

    def real(value: Any) -> Any:
        if isinstance(value, StreamedWeight):
            if id(value) not in fetched:
                with torch.inference_mode(mode=False):  # tensors of inference mode would not count writes
                    # The same class; detached, torch lets every write be made, and counts it.
                    tensor = value._fetch().detach()  # noqa: SLF001
                # Torch's counter of writes.
                fetched[id(value)] = (value, tensor, tensor._version)  # noqa: SLF001
            return fetched[id(value)][1]
        if type(value) in {list, tuple}:
            return type(value)([real(item) for item in value])
        if type(value) is dict:
            return {key: real(item) for key, item in value.items()}
        return value

    real_args, real_kwargs = (
        [real(value) for value in args],
        {key: real(value) for key, value in kwargs.items()},
    )
    try:
        result = func(*real_args, **real_kwargs)
    except RuntimeError as error:
        _explain_devices(fetched.values(), (*real_args, *real_kwargs.values()), error)
        raise
    for placeholder, tensor, version in fetched.values():
        if tensor._version != version:  # noqa: SLF001 - as above
            raise StreamError(
                f"'{placeholder.weight_name}' is streamed and cannot be written to: the next pass reads "
                f"it anew",
                help="keep it on a device in the device map, or call model.devmap.remove() first",
            )
    return _wrap_views(result, [(placeholder, tensor) for placeholder, tensor, _ in fetched.values()])


def _explain_devices(
    fetched: Iterable[tuple[StreamedWeight, torch.Tensor, int]], values: Iterable[Any], error: RuntimeError
) -> None:
    """Say which weight met a tensor of another device.

    Nothing moves inputs where a part of a block is called by itself.
    """
    for placeholder, tensor, _ in fetched:
        others = {value.device for value in values if isinstance(value, torch.Tensor) and value.dim()} - {
            tensor.device
        }
        if others:
            raise StreamError(
                f"'{placeholder.weight_name}' is streamed to {tensor.device}, and was used with a tensor "
                f"on {min(map(str, others))}",
                help=f"bring the input to {tensor.device}, or call the whole block, which does so itself",
            ) from error


def _root(tensor: torch.Tensor) -> torch.Tensor:
    base = tensor._base  # noqa: SLF001 - torch's name for what a view looks at
    return tensor if base is None else base


def _wrap_views(result: Any, fetched: Sequence[tuple[StreamedWeight, torch.Tensor]]) -> Any:
    if type(result) in {list, tuple}:
        return type(result)([_wrap_views(item, fetched) for item in result])
    if not isinstance(result, torch.Tensor) or isinstance(result, StreamedWeight):
        return result
    for source, tensor in fetched:
        if result is tensor:
            return source
        # The only way to ask.
        if result._is_view() and _root(result) is _root(tensor) and result.dtype == tensor.dtype:  # noqa: SLF001
            return _view_of(source, result, int(result.storage_offset()) - int(tensor.storage_offset()))
    return result


def _view_of(source: StreamedWeight, result: torch.Tensor, offset: int) -> StreamedWeight:
    size, stride = result.shape, result.stride()

    def fetch() -> torch.Tensor:
        base = source._fetch()  # noqa: SLF001 - the same class
        return torch.as_strided(base, size, stride, base.storage_offset() + offset)

    return StreamedWeight(source.weight_name, fetch, like=result, device=result.device, is_parameter=False)
