"""The inventory of a live or meta `nn.Module`. The only light-weight reader that is not: it imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from devmap.errors import InventoryError
from devmap.inventory.bulk import collector_paused, rows
from devmap.inventory.live.live_match import match_checkpoint
from devmap.inventory.model import Architecture, Inventory, Tensor
from devmap.inventory.repeated_blocks import repeated_blocks
from devmap.inventory.table.figures import architecture_of
from devmap.inventory.tree import with_ancestors

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from devmap.inventory.model import TensorKind

__all__ = ["are_plain", "are_tied", "asked_whole", "is_module", "match_checkpoint", "read_module"]


@collector_paused()
def read_module(model: nn.Module) -> Inventory:
    """Describe a module on any device, or on meta, with its ties, buffers and classes in registration order.

    Names that lead to the same parameter, or to the same stretch of the same storage, are one tie group.
    Modules without a tensor in their subtree are left out. Linear in modules plus tensors.

    Raises:
        InventoryError: for what is no module, and for a lazy one that has no shapes yet.
    """
    if not is_module(model):
        raise InventoryError(
            f"{model!r} is not an nn.Module",
            help="give a module, or an Inventory made from a checkpoint or a manifest",
        )
    classes: dict[str, str] = {}
    names: list[str] = []
    held: list[torch.Tensor] = []
    persistent: list[bool] = []
    whole: set[str] = set()
    known: dict[type, tuple[str, Iterable[str]]] = {}
    all_hold_tensors = True
    pending: list[tuple[str, nn.Module]] = [("", model)]
    while pending:  # as named_modules(remove_duplicate=False), without recursion
        path, module = pending.pop()
        own = vars(module)  # torch's own names for these drop duplicates
        kind = type(module)
        if kind not in known:
            known[kind] = kind.__name__, asked_whole(kind)
        classes[path], named = known[kind]
        if named or "_no_split_modules" in own:
            whole.update(own.get("_no_split_modules") or named)
        prefix, before = f"{path}." if path else "", len(names)
        for name, parameter in own["_parameters"].items():
            if parameter is not None:
                names.append(prefix + name)
                held.append(parameter)
                persistent.append(True)
        for name, buffer in own["_buffers"].items():
            if buffer is not None:
                names.append(prefix + name)
                held.append(buffer)
                persistent.append(name not in own["_non_persistent_buffers_set"])
        children = [
            (prefix + name, child) for name, child in reversed(own["_modules"].items()) if child is not None
        ]
        pending += children
        if not children and len(names) == before:
            all_hold_tensors = False
    kinds = [
        _PLAIN.get(type(tensor)) or _kind_of(name, tensor) for name, tensor in zip(names, held, strict=True)
    ]
    shapes = [tuple(tensor.shape) for tensor in held]
    tensors = rows(Tensor, names, shapes, [_DTYPES[tensor.dtype] for tensor in held], kinds, persistent)
    modules = classes if all_hold_tensors else with_ancestors(classes, names)
    return Inventory(
        modules=modules,
        tensors=dict(zip(names, tensors, strict=True)),
        ties=_ties(names, held),
        no_split_module_classes=_kept_whole(model, modules, whole),
        architecture=_architecture(model),
    )


def _kept_whole(model: nn.Module, modules: Mapping[str, str], asked: set[str]) -> tuple[str, ...]:
    """Return what the code asks for.

    In a model of transformers, diffusers or timm, whose lists are lists of blocks, these too.
    """
    known = any(hasattr(model, mark) for mark in ("base_model_prefix", "_repeated_blocks", "pretrained_cfg"))
    return tuple(sorted(asked.union(repeated_blocks(modules, asked) if known else ())))


_DTYPES = {
    dtype: str(dtype).removeprefix("torch.")
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
_PLAIN: dict[type, TensorKind] = {nn.Parameter: "parameter", torch.Tensor: "buffer"}


def _kind_of(name: str, tensor: torch.Tensor) -> TensorKind:
    if nn.parameter.is_lazy(tensor):
        raise InventoryError(
            f"'{name}' has no shape yet: it belongs to a lazy module",
            help="run the model once with real input first",
        )
    return "parameter" if isinstance(tensor, nn.Parameter) else "buffer"


def _ties(names: Sequence[str], held: Sequence[torch.Tensor]) -> tuple[tuple[str, ...], ...]:
    """Return the names of each stretch of bytes that has several."""
    bytes_of = _identities(held)
    if _all_differ(bytes_of):
        return ()
    shared: dict[Hashable, list[str]] = {}
    for name, identity in zip(names, bytes_of, strict=True):
        shared.setdefault(identity, []).append(name)
    return tuple(tuple(group) for group in shared.values() if len(group) > 1)


def is_module(model: object) -> bool:
    """Return whether it is a module, and not for example a class of them."""
    return isinstance(model, nn.Module)


def asked_whole(holder: nn.Module | type) -> Iterable[str]:
    """Return the names of the classes that a module, or a class of them, asks to be kept whole.

    diffusers names blocks that are compiled once in `_repeated_blocks`; they are what to keep whole, too.
    """
    whole = getattr(holder, "_no_split_modules", None) or ()
    repeated = getattr(holder, "_repeated_blocks", None)
    return {*whole, *repeated} if repeated else whole


def are_tied(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether two of a model's tensors are one stretch of bytes."""
    return not _all_differ(_identities(tensors))


def are_plain(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether all are parameters and tensors of torch's own classes.

    With shapes, not lazy, no wrappers.
    """
    return set(map(type, tensors)) <= set(_PLAIN)


def _identities(tensors: Iterable[torch.Tensor]) -> list[Hashable]:
    return [id(tensor) if tensor.is_meta else _identity(tensor) for tensor in tensors]


def _all_differ(identities: Sequence[Hashable]) -> bool:
    return len(set(identities)) == len(identities)


def _identity(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that share their bytes.

    Those of other devices' wrappers have no address, as meta tensors: the object counts.
    """
    if type(tensor) not in _PLAIN or tensor.layout != torch.strided or tensor.numel() == 0:
        return id(tensor)
    address = tensor.untyped_storage().data_ptr()
    return (
        (address, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if address
        else id(tensor)
    )


def _architecture(model: nn.Module) -> Architecture | None:
    config = getattr(model, "config", None)
    if isinstance(config, dict) and "_class_name" in config:
        return architecture_of({"_class_name": type(model).__name__}, type(model).__name__)
    to_dict = getattr(config, "to_dict", None)
    if not callable(to_dict):
        return None
    # Some classes work them out and do not write them down; others call something else by this name.
    kinds = getattr(config, "layer_types", None)
    is_by_layer = isinstance(kinds, list | tuple) and len(kinds) == getattr(config, "num_hidden_layers", None)
    worked_out = {"layer_types": list(kinds)} if kinds and is_by_layer else {}
    return architecture_of({**worked_out, **to_dict()}, type(model).__name__)
