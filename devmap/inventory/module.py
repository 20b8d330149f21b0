"""The inventory of a live or meta `nn.Module`. The only light-weight reader that is not: it imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.errors import InventoryError
from devmap.inventory.figures import architecture_of
from devmap.inventory.live_match import match_checkpoint
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.inventory.tree import with_ancestors

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from devmap.inventory.model import TensorKind

__all__ = ["match_checkpoint", "read_module"]


def read_module(model: nn.Module) -> Inventory:
    """Describe a module on any device, or on meta, with its ties, buffers and classes in registration order.

    Names that lead to the same parameter, or to the same stretch of the same storage, are one tie group. Modules without a
    tensor in their subtree are left out. Linear in modules plus tensors.

    Raises:
        InventoryError: for a lazy module that has no shapes yet.
    """
    classes: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    shared: dict[Hashable, list[str]] = {}
    whole: set[str] = set()
    known: dict[type, tuple[str, Iterable[str]]] = {}
    for path, module in _walk(model):
        kind = type(module)
        if kind not in known:
            known[kind] = kind.__name__, getattr(kind, "_no_split_modules", None) or ()
        classes[path], named = known[kind]
        whole.update(vars(module).get("_no_split_modules") or named)
        if module._parameters or module._buffers:  # noqa: SLF001 - named_parameters() drops duplicates
            prefix = f"{path}." if path else ""
            for name, tensor, persistent in _own_tensors(module):
                full = prefix + name
                tensors[full] = _describe(full, tensor, persistent=persistent)
                shared.setdefault(_identity(tensor), []).append(full)
    return Inventory(
        modules=with_ancestors(classes, tensors),
        tensors=tensors,
        ties=tuple(tuple(names) for names in shared.values() if len(names) > 1),
        no_split_module_classes=tuple(sorted(whole)),
        architecture=_architecture(model),
    )


def _walk(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As `named_modules(remove_duplicate=False)`, without recursion."""
    pending: list[tuple[str, nn.Module]] = [("", model)]
    while pending:
        path, module = pending.pop()
        yield path, module
        if module._modules:  # noqa: SLF001 - named_children() drops duplicates
            prefix = f"{path}." if path else ""
            pending += [(prefix + name, child) for name, child in reversed(module._modules.items()) if child is not None]  # noqa: SLF001 - as above


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, bool]]:
    for name, parameter in module._parameters.items():  # noqa: SLF001 - named_parameters() drops duplicates
        if parameter is not None:
            yield name, parameter, True
    for name, buffer in module._buffers.items():  # noqa: SLF001 - as above
        if buffer is not None:
            yield name, buffer, name not in module._non_persistent_buffers_set  # noqa: SLF001 - torch has no public name for it


_DTYPES = {dtype: str(dtype).removeprefix("torch.") for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
_PLAIN = {torch.Tensor, nn.Parameter}


def _describe(name: str, tensor: torch.Tensor, *, persistent: bool) -> Tensor:
    kind: TensorKind = "parameter"
    if type(tensor) is not nn.Parameter:
        if type(tensor) not in _PLAIN and nn.parameter.is_lazy(tensor):
            raise InventoryError(f"'{name}' has no shape yet: it belongs to a lazy module", help="run the model once with real input first")
        kind = "parameter" if isinstance(tensor, nn.Parameter) else "buffer"
    return Tensor(name, tuple(tensor.shape), _DTYPES[tensor.dtype], kind, persistent)


def _identity(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that share their bytes. Meta tensors, and those of other devices' wrappers, have no address: the object counts."""
    if tensor.is_meta or type(tensor) not in _PLAIN or tensor.layout != torch.strided or tensor.numel() == 0:
        return id(tensor)
    address = tensor.untyped_storage().data_ptr()
    return (address, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype) if address else id(tensor)


def _architecture(model: nn.Module) -> Architecture | None:
    config = getattr(model, "config", None)
    to_dict = getattr(config, "to_dict", None)
    return architecture_of(to_dict(), type(model).__name__) if callable(to_dict) else None
