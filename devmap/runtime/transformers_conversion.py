"""Stored tensors that only transformers' own code can bring to the model's names and shapes.

Most of its conversions are followed piece by piece, without a copy (`devmap.inventory.conversions`). What is
left over (rows that are permuted, names that change by several rules at once, operations of a newer version)
is converted by transformers itself, in host memory, one group of tensors at a time.
"""

from __future__ import annotations

import copy
import dataclasses
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from devmap.errors import LoadError
from devmap.runtime.initial_values import replace_tensors
from devmap.runtime.storage.files import read_once
from devmap.runtime.storage.weights import torch_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.inventory.model import Inventory
    from devmap.inventory.stored.header import StoredTensor

__all__ = ["convert_the_rest", "run_transform", "targets_of", "transforms_of"]


def convert_the_rest(model: nn.Module, inventory: Inventory) -> Inventory:
    """Let transformers convert what the inventory's mapping could not follow; the results are real tensors.

    Returns the inventory with a mapping that lacks them: they came with the module.

    Raises:
        LoadError: when transformers' conversion fails.
    """
    mapping, checkpoint = inventory.mapping, inventory.checkpoint
    assert mapping is not None
    assert checkpoint is not None
    wanted = {*mapping.missing, *(each.name for each in mapping.mismatched)}
    if not wanted or not mapping.unmapped or not hasattr(model, "base_model_prefix"):
        return inventory
    if find_spec("transformers.core_model_loading") is None:
        return inventory
    made: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    for first, (transform, sources) in transforms_of(model, checkpoint.tensors).items():
        targets = targets_of(first, transform)
        if wanted.isdisjoint(targets):
            continue
        found = run_transform(
            first, transform, [(checkpoint.tensors[name], pattern) for name, pattern in sources], model
        )
        made |= found
        used.update(name for name, _ in sources)
    _set(model, made)
    return _without(inventory, made, used)


def transforms_of(
    model: nn.Module, held: Mapping[str, StoredTensor], quantizer: object = None
) -> dict[str, tuple[Any, list[tuple[str, str]]]]:
    """Return each transform with its stored names and the patterns that they match.

    By the first name it makes. `quantizer` is Transformers' own, which adds what its method does.
    """
    loading: Any = import_module("transformers.core_model_loading")
    conversions = import_module("transformers.conversion_mapping").get_model_conversion_mapping(
        model, hf_quantizer=quantizer
    )
    renamings = [each for each in conversions if isinstance(each, loading.WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, loading.WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    prefix = model.base_model_prefix
    state = model.state_dict()
    found: dict[str, tuple[Any, list[tuple[str, str]]]] = {}
    for name in sorted(held, key=loading.dot_natural_key):
        renamed, pattern = loading.rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = loading.rename_source_key(name, [], [], prefix, state)
        if renamed not in state:
            continue
        if renamed not in found:
            transform = (
                copy.deepcopy(by_pattern[pattern])
                if pattern is not None
                else loading.WeightRenaming(name, renamed)
            )
            found[renamed] = (transform, [])
        found[renamed][1].append((name, name if pattern is None else pattern))
    return found


def run_transform(
    first: str,
    transform: Any,
    stored: Iterable[tuple[StoredTensor, str]],
    model: nn.Module,
    quantizer: object = None,
) -> dict[str, torch.Tensor]:
    """Return what a transform makes of its stored tensors, by the names of the model, in host memory.

    `first` is the name that the transform is known by; each stored tensor comes with the pattern that it
    matches. The transform keeps what it is given: one that is run again is a copy.

    Raises:
        LoadError: when the code of Transformers, or of the quantised method's library, fails.
        StreamError: when a stored tensor cannot be read.
    """
    for tensor, pattern in stored:
        transform.add_tensor(first, tensor.name, pattern, _read_stored(tensor))
    try:
        with torch.no_grad():
            made: Mapping[str, Any] = transform.convert(
                first, model=model, config=getattr(model, "config", None), hf_quantizer=quantizer
            )
    except Exception as error:
        # The code of transformers' operations runs; what it raises is the reason.
        raise LoadError(
            f"transformers' own conversion of '{first}' failed: {type(error).__name__}: {error}",
            help="compare the versions of transformers and of a quantised method's package with those "
            "that saved the checkpoint",
        ) from error
    return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def targets_of(first: str, transform: Any) -> set[str]:
    """Return the names that a transform makes; `first` is the one that it is known by."""
    patterns = transform.target_patterns
    return {first, *(first.replace(patterns[0], pattern, 1) for pattern in patterns)}


def _read_stored(stored: StoredTensor) -> torch.Tensor:
    """Return a stored tensor in fresh host memory.

    Raises:
        LoadError: when torch does not have its dtype.
        StreamError: when it cannot be read.
    """
    dtype = torch_dtype(stored.dtype)
    if dtype is None:
        raise LoadError(f"'{stored.name}' is stored as {stored.dtype}, which torch does not have")
    content = read_once(stored.file, stored.offset, stored.nbytes)
    flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.view(stored.shape)


def _set(model: nn.Module, made: Mapping[str, torch.Tensor]) -> None:
    places: dict[str, torch.Tensor] = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    twins: dict[int, torch.Tensor] = {}
    for name, value in made.items():
        before = places.get(name)
        if before is None:
            continue
        if before.shape != value.shape:
            raise LoadError(
                f"'{name}' is {list(before.shape)} in the model and {list(value.shape)} after transformers' "
                f"own conversion"
            )
        whole = value.contiguous()
        twins[id(before)] = (
            nn.Parameter(whole, requires_grad=before.requires_grad and whole.is_floating_point())
            if isinstance(before, nn.Parameter)
            else whole
        )
    replace_tensors(model, twins)


def _without(inventory: Inventory, made: Iterable[str], used: Iterable[str]) -> Inventory:
    mapping = inventory.mapping
    assert mapping is not None
    names, gone = set(made), set(used)
    return dataclasses.replace(
        inventory,
        mapping=dataclasses.replace(
            mapping,
            pieces={name: pieces for name, pieces in mapping.pieces.items() if name not in names},
            unmapped=tuple(name for name in mapping.unmapped if name not in gone),
            missing=tuple(name for name in mapping.missing if name not in names),
            mismatched=tuple(each for each in mapping.mismatched if each.name not in names),
        ),
    )
