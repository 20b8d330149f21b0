"""Sentences that the rules over a config and the checks of a plain map share.

And many tensor names as a few lines for people: `model.layers.12 to model.layers.31, 180 tensors, 21.4 GB`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import format_bytes
from devmap_validators.checks.assignment import run_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap_validators.checks.assignment import SplitBlock

__all__ = [
    "Group",
    "counted",
    "devices_in_words",
    "exact_bytes",
    "fold",
    "fold_paths",
    "over_budget",
    "split_block",
    "split_tie",
]


def devices_in_words(devices: Iterable[Device]) -> str:
    """Devices in tier order: `device 0, device 1 and cpu`; `none` for none."""
    names = [device_name(device) for device in sorted(set(devices))]
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def exact_bytes(count: int) -> str:
    """Return the bytes in a short and an exact form where both help.

    `21.4 GB`, or the bytes alone below a megabyte.
    """
    return format_bytes(count) if abs(count) >= 1_000_000 else f"{count:,} byte{'' if count == 1 else 's'}"


def over_budget(device: Device, used_bytes: int, budget_bytes: int) -> str:
    """Return a device was given more than it may hold."""
    used, budget, short = (
        exact_bytes(count) for count in (used_bytes, budget_bytes, used_bytes - budget_bytes)
    )
    return f"{device_name(device)} is given {used} of weights and may hold {budget}: {short} too much"


def split_block(block: SplitBlock) -> str:
    """Return a block that may not be split lies on several devices."""
    where = ", ".join(
        f"'{_inside(block.path, name)}' on {device_name(device)}" for device, name in block.parts[:3]
    )
    devices = devices_in_words(device for device, _ in block.parts)
    it = f"'{block.path}'" if block.path else "the whole model"
    return f"{it} is a {block.class_name}, which may not be split, but lies on {devices} ({where})"


def split_tie(inventory: Inventory, placed: Sequence[tuple[str, Device]], dtype: str | None) -> str:
    """Tied tensors lie on several devices."""
    nbytes = run_bytes(inventory, [placed[0][0]], dtype)
    copies = len({device for _, device in placed}) - 1
    names = " and ".join(f"'{name}' on {device_name(device)}" for name, device in placed[:3])
    return (
        f"tied weights lie apart: {names}; the "
        f"{'copy costs' if copies == 1 else f'{copies} copies cost'} "
        f"{exact_bytes(copies * nbytes)}"
    )


def _inside(block: str, name: str) -> str:
    return name[len(block) + 1 :] if block else name


@dataclass(frozen=True, slots=True)
class Group:
    """A run of modules or tensors."""

    first: str
    last: str
    tensors: tuple[str, ...]
    nbytes: int
    """At the run dtype, a tied tensor once."""

    def __str__(self) -> str:
        return (
            f"{_span(self.first, self.last)}, {counted(len(self.tensors), 'tensor')}, "
            f"{format_bytes(self.nbytes)}"
        )


def fold(inventory: Inventory, names: Iterable[str], *, dtype: str | None = None) -> tuple[Group, ...]:
    """Return the fewest lines that say which tensors `names` are.

    Whole modules where all of one is meant, runs where numbers follow.

    Linear in the model's modules and tensors.
    """
    wanted = frozenset(names)
    tensors_by_path: dict[str, tuple[str, ...]] = {}
    whole = _whole_modules(inventory, wanted)
    pending = [""]
    while pending:
        path = pending.pop()
        if path in whole:
            tensors_by_path[path] = _tensors_inside(inventory, path)
            continue
        tensors_by_path.update(
            {tensor.name: (tensor.name,) for tensor in inventory.own_tensors[path] if tensor.name in wanted}
        )
        pending += reversed(inventory.children[path])
    return tuple(
        Group(run[0], run[-1], inside, run_bytes(inventory, inside, dtype))
        for run in fold_paths(tensors_by_path)
        if (inside := tuple(name for path in run for name in tensors_by_path[path]))
    )


def fold_paths(paths: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Paths in runs whose first number counts up by one, in the order in which each run begins.

    >>> fold_paths(["h.0.mlp", "h.1.mlp", "head", "h.3.mlp"])
    (('h.0.mlp', 'h.1.mlp'), ('h.3.mlp',), ('head',))
    """
    runs: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    last_number: dict[tuple[str, str], int] = {}
    for path in paths:
        segments = path.split(".")
        place = next((place for place, segment in enumerate(segments) if segment.isdecimal()), None)
        if place is None:
            runs[path, ""].append([path])
            continue
        template = (".".join(segments[:place]), ".".join(segments[place + 1 :]) + ".#")
        number = int(segments[place])
        if last_number.get(template) == number - 1:
            runs[template][-1].append(path)
        else:
            runs[template].append([path])
        last_number[template] = number
    return tuple(tuple(run) for found in runs.values() for run in found)


def counted(count: int, word: str) -> str:
    """Return a number with its noun: `1 tensor`, `1,200 tensors`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _span(first: str, last: str) -> str:
    if not first:
        return "the whole model"
    return f"'{first}'" if first == last else f"'{first}' to '{last}'"


def _whole_modules(inventory: Inventory, wanted: frozenset[str]) -> frozenset[str]:
    """Modules of which every tensor is wanted, and that have one."""
    missing: dict[str, int] = dict.fromkeys(inventory.modules, 0)
    present: dict[str, int] = dict.fromkeys(inventory.modules, 0)
    for path in reversed(list(inventory.modules)):
        own = inventory.own_tensors[path]
        inside = sum(tensor.name in wanted for tensor in own)
        present[path] += inside
        missing[path] += len(own) - inside
        if path:
            parent = path.rpartition(".")[0]
            present[parent] += present[path]
            missing[parent] += missing[path]
    return frozenset(path for path in inventory.modules if present[path] and not missing[path])


def _tensors_inside(inventory: Inventory, root: str) -> tuple[str, ...]:
    found: list[str] = []
    pending = [root]
    while pending:
        path = pending.pop()
        found += [tensor.name for tensor in inventory.own_tensors[path]]
        pending += reversed(inventory.children[path])
    return tuple(found)
