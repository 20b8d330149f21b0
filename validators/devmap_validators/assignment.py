"""Which device each tensor gets from a map of paths: the walk that every check of a device map stands on.

One pass from the root down hands the nearest key's target to modules and tensors, so that a map of a million keys costs no
more than its keys plus the model's tensors.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from devmap.config.device import Device
from devmap.inventory.dtypes import run_dtype, storage_bytes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from devmap.inventory.model import Inventory

__all__ = ["Assignment", "SplitBlock", "assign", "bytes_on_devices", "run_bytes", "split_blocks", "split_ties"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a map says of each tensor of a model, in the model's order."""

    targets: Mapping[str, object]
    """The target of each covered tensor: a `Device`, or whatever else the map holds there."""
    keys: Mapping[str, str]
    """The path in the map that decided, for each covered tensor."""
    uncovered: tuple[str, ...]
    """Tensors that no key covers."""


@dataclass(frozen=True, slots=True)
class SplitBlock:
    """A module that may not be split, spread over several devices."""

    path: str
    class_name: str
    parts: tuple[tuple[Device, str], ...]
    """Each device, in order of first use, and the first tensor that lies there."""


def assign(inventory: Inventory, targets: Mapping[str, object]) -> Assignment:
    """The target of every tensor: that of the longest key that is the tensor or a module above it; `""` is the root.

    Linear in the map plus the model's modules and tensors.
    """
    deciding: dict[str, str | None] = {}
    for path in inventory.modules:
        if path in targets:
            deciding[path] = path
        else:
            deciding[path] = deciding[path.rpartition(".")[0]] if path else None
    found: dict[str, object] = {}
    keys: dict[str, str] = {}
    uncovered: list[str] = []
    for name in inventory.tensors:
        key = name if name in targets else deciding[name.rpartition(".")[0]]
        if key is None:
            uncovered.append(name)
        else:
            keys[name] = key
            found[name] = targets[key]
    return Assignment(found, keys, tuple(uncovered))


def split_blocks(inventory: Inventory, targets: Mapping[str, object], classes: Collection[str]) -> tuple[SplitBlock, ...]:
    """The outermost modules of `classes` whose tensors lie on more than one device; targets that are no device do not count."""
    whole = frozenset(classes)
    block_of: dict[str, str] = {}
    for path, class_name in inventory.modules.items():
        parent = block_of.get(path.rpartition(".")[0]) if path else None
        if parent is not None:
            block_of[path] = parent
        elif class_name in whole:
            block_of[path] = path
    parts: dict[str, dict[Device, str]] = defaultdict(dict)
    for name, target in targets.items():
        block = block_of.get(name.rpartition(".")[0])
        if block is not None and isinstance(target, Device):
            parts[block].setdefault(target, name)
    return tuple(SplitBlock(path, inventory.modules[path], tuple(used.items())) for path, used in parts.items() if len(used) > 1)


def split_ties(inventory: Inventory, targets: Mapping[str, object]) -> tuple[tuple[tuple[str, Device], ...], ...]:
    """The tie groups whose names lie on more than one device: each name that has a device, with it."""
    groups: list[tuple[tuple[str, Device], ...]] = []
    for group in inventory.ties:
        placed = tuple((name, target) for name in group if isinstance(target := targets.get(name), Device))
        if len({device for _, device in placed}) > 1:
            groups.append(placed)
    return tuple(groups)


def bytes_on_devices(inventory: Inventory, targets: Mapping[str, object], dtype: str | None) -> Mapping[Device, int]:
    """Bytes of weights on each device at the run dtype; a tied tensor counts once on each device that it lies on."""
    used: dict[Device, int] = defaultdict(int)
    counted: set[tuple[str, Device]] = set()
    owner = inventory.owner
    for name, target in targets.items():
        if not isinstance(target, Device):
            continue
        if name in owner:
            share = (owner[name], target)
            if share in counted:
                continue
            counted.add(share)
        tensor = inventory.tensors[name]
        used[target] += _bytes_at(tensor.shape, tensor.dtype, dtype, tensor.kind)
    return dict(used)


def run_bytes(inventory: Inventory, names: Iterable[str], dtype: str | None) -> int:
    """Bytes of some tensors at the run dtype, a tied one once."""
    owner = inventory.owner
    total = 0
    for name in dict.fromkeys(owner.get(name, name) for name in names):
        tensor = inventory.tensors[name]
        total += _bytes_at(tensor.shape, tensor.dtype, dtype, tensor.kind)
    return total


@lru_cache(maxsize=4096)
def _bytes_at(shape: tuple[int, ...], stored: str, asked: str | None, kind: str) -> int:
    """Bytes of a tensor at the run dtype. Remembered, as the thousands of tensors of a model have a handful of shapes."""
    return storage_bytes(shape, run_dtype(stored, asked, kind=kind))
