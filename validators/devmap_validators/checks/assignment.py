"""Which device each tensor gets from a map of paths: what every check of a device map stands on.

A map is read as runs of the model's line of tensors, so that a check costs what the map does and not what the
model does: a map of 80 keys over 700 tensors is 80 runs, and only the blocks at their ends can be torn.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING

from devmap.config.values.device import Device
from devmap.inventory.atoms import tensor_sizes, torn_blocks
from devmap.inventory.flat_index import over, value_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from devmap.inventory.flat_index import PathInterval
    from devmap.inventory.model import Inventory

__all__ = [
    "Assignment",
    "SplitBlock",
    "assign",
    "bytes_on_devices",
    "run_bytes",
    "split_blocks",
    "split_ties",
]


@dataclass(frozen=True, eq=False)
class Assignment:
    """What a map says of each tensor of a model."""

    inventory: Inventory
    by_path: Mapping[str, object]
    """The map: the target of each path, a `Device` or whatever else it holds there."""
    runs: tuple[PathInterval, ...]
    """All tensors in order; the path of a run is the one that decided, None where no path covers its tensors.
    """

    @cached_property
    def uncovered(self) -> tuple[str, ...]:
        """Tensors that no path covers."""
        names = self.inventory.flat_index.tensors
        return tuple(name for run in self.runs if run.path is None for name in names[run.start : run.end])

    def path_of(self, tensor: str) -> str | None:
        """Return the path that decides a tensor."""
        return value_at(self.runs, self.inventory.flat_index.number[tensor])

    def target_of(self, tensor: str) -> object:
        """Return the target of a tensor; None where no path covers it."""
        path = self.path_of(tensor)
        return None if path is None else self.by_path[path]

    def devices(self) -> Iterator[tuple[int, int, Device]]:
        """Yield the runs that lie on a device: first tensor, the first after it, device."""
        for run in self.runs:
            target = None if run.path is None else self.by_path[run.path]
            if isinstance(target, Device):
                yield run.start, run.end, target

    def devices_within(self, start: int, end: int) -> dict[Device, str]:
        """Return the devices of a stretch of tensors.

        In order of first use, each with the first tensor that lies there.
        """
        found: dict[Device, str] = {}
        for first, _, path in over(self.runs, start, end):
            target = None if path is None else self.by_path[path]
            if isinstance(target, Device) and target not in found:
                found[target] = self.inventory.flat_index.tensors[first]
        return found


_START = itemgetter(0)


@dataclass(frozen=True, slots=True)
class SplitBlock:
    """A module that may not be split, spread over several devices."""

    path: str
    class_name: str
    parts: tuple[tuple[Device, str], ...]
    """Each device, in order of first use, and the first tensor that lies there."""


def assign(inventory: Inventory, targets: Mapping[str, object]) -> Assignment:
    """Return the target of every tensor: that of the longest path that is the tensor or a module above it.

    `""` is the root.

    n log n in the map.
    """
    return Assignment(inventory, targets, tuple(inventory.flat_index.runs(targets)))


def split_blocks(assignment: Assignment, classes: Collection[str]) -> tuple[SplitBlock, ...]:
    """Return the outermost modules of `classes` whose tensors lie on more than one device.

    Targets that are no device do not count.
    """
    inventory = assignment.inventory
    found = []
    for block in torn_blocks(inventory, frozenset(classes), [run.start for run in assignment.runs[1:]]):
        used = assignment.devices_within(block.start, block.end)
        if len(used) > 1:
            found.append(SplitBlock(block.path, inventory.modules[block.path], tuple(used.items())))
    return tuple(found)


def split_ties(assignment: Assignment) -> tuple[tuple[tuple[str, Device], ...], ...]:
    """Return the tie groups whose names lie on more than one device: each name that has a device, with it."""
    groups: list[tuple[tuple[str, Device], ...]] = []
    for group in assignment.inventory.ties:
        placed = tuple(
            (name, target) for name in group if isinstance(target := assignment.target_of(name), Device)
        )
        if len({device for _, device in placed}) > 1:
            groups.append(placed)
    return tuple(groups)


def bytes_on_devices(assignment: Assignment, dtype: str | None) -> Mapping[Device, int]:
    """Return the bytes of weights on each device at the run dtype.

    A tied tensor counts once on each device that it lies on.
    """
    up_to = _bytes_up_to(assignment.inventory, dtype)
    used: dict[Device, int] = defaultdict(int)
    for start, end, device in assignment.devices():
        used[device] += up_to[end] - up_to[start]
    number = assignment.inventory.flat_index.number
    for group in assignment.inventory.ties:
        counted: set[Device] = set()
        for name in group:
            target = assignment.target_of(name)
            if isinstance(target, Device):
                if target in counted:
                    used[target] -= up_to[number[name] + 1] - up_to[number[name]]
                counted.add(target)
    return dict(used)


def run_bytes(inventory: Inventory, names: Iterable[str], dtype: str | None) -> int:
    """Return the bytes of some tensors at the run dtype, a tied one once."""
    owner, sizes = inventory.owner, tensor_sizes(inventory, dtype)
    return sum(sizes[name] for name in dict.fromkeys(owner.get(name, name) for name in names))


def _bytes_up_to(inventory: Inventory, dtype: str | None) -> Sequence[int]:
    """Return the bytes of all tensors before each number, and of all of them last.

    Worked out once for an inventory.
    """
    return inventory.once(
        ("bytes up to", dtype), lambda: [0, *accumulate(tensor_sizes(inventory, dtype).values())]
    )
