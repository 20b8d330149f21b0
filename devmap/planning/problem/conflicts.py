"""Wishes that cannot all be met, each named by its key in the config.

`same_device` and ties make groups of atoms that share a device. A group is in conflict when two of its atoms
are pinned to different devices, when one is pinned to a device that another must not lie on, or when no
offered device may hold all of them. A tie whose two sides are pinned apart is no conflict: the plan holds a
copy and says what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.inventory.patterns import expand_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.device import Device
    from devmap.config.yaml.faults import DocumentPath
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory

__all__ = ["Conflict", "Requested", "conflicts"]

_MOST = 20
"""Groups that are told; a pattern that names many modules is at odds with each of them for one reason."""


@dataclass(frozen=True)
class Requested:
    """What the config asks of atoms, by their place in the order."""

    pins: Mapping[int, Device]
    excluded: Mapping[int, frozenset[Device]]
    """By `forbid`, and the disk for what is trained."""
    together: tuple[tuple[int, ...], ...]
    """The atoms of each group of `same_device`, in the config's order."""
    trained: frozenset[int]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Wishes of which one has to be taken back."""

    keys: tuple[str, ...]
    """The config keys in conflict: `same_device[0]`, `forbid.disk`, `device_map[lm_head]`."""
    message: str
    path: DocumentPath
    """Where the first of them stands in the config."""


class _Groups:
    """Atoms joined step by step; a class because joining needs all three tables at once."""

    def __init__(self, asked: Requested, count: int) -> None:
        self.parent = list(range(count))
        self.pins = {at: (device, at) for at, device in asked.pins.items()}

    def root(self, at: int) -> int:
        while self.parent[at] != at:
            self.parent[at] = self.parent[self.parent[at]]
            at = self.parent[at]
        return at

    def join(self, one: int, other: int) -> tuple[int, int] | None:
        """Join two atoms; where they are pinned apart they stay apart.

        And the two pinned atoms are returned.
        """
        first, second = sorted((self.root(one), self.root(other)))
        if first == second:
            return None
        mine, theirs = self.pins.get(first), self.pins.get(second)
        if mine is not None and theirs is not None and mine[0] != theirs[0]:
            return mine[1], theirs[1]
        if theirs is not None and mine is None:
            self.pins[first] = theirs
        self.parent[second] = first
        return None


def conflicts(
    config: PlacementConfig,
    inventory: Inventory,
    atoms: Sequence[Atom],
    asked: Requested,
    offered: Collection[Device],
) -> tuple[Conflict, ...]:
    """Return the conflicts between the constraints of a config, each set of keys once.

    Near linear in atoms and tied tensors.
    """
    groups = _Groups(asked, len(atoms))
    names = _Names(config, inventory, atoms, asked)
    found: list[Conflict] = []
    for number, group in enumerate(asked.together):
        clash = next((clash for other in group[1:] if (clash := groups.join(group[0], other))), None)
        if clash is not None:
            found.append(names.pinned_apart(number, clash))
    home = {name: at for at, atom in enumerate(atoms) for name in atom.tensors} if inventory.ties else {}
    for group_of_names in inventory.ties:
        for name in group_of_names[1:]:
            groups.join(home[group_of_names[0]], home[name])
    members: dict[int, list[int]] = {}
    for at in sorted(asked.excluded):
        members.setdefault(groups.root(at), []).append(at)
    at_odds = (
        conflict
        for root, excluded in members.items()
        for conflict in names.excluded(groups.pins.get(root), excluded, offered)
    )
    found += islice(at_odds, _MOST)
    return tuple({conflict.keys: conflict for conflict in reversed(found)}.values())[::-1]


class _Names:
    """Says which keys ask for what.

    A class because every sentence needs the config, the atoms and the constraints.
    """

    def __init__(
        self, config: PlacementConfig, inventory: Inventory, atoms: Sequence[Atom], asked: Requested
    ) -> None:
        self.config = config
        self.inventory = inventory
        self.atoms = atoms
        self.asked = asked

    def pinned_apart(self, number: int, clash: tuple[int, int]) -> Conflict:
        one, other = sorted(clash)
        where = " and ".join(
            f"'{self.atoms[at].path}' to {device_name(self.asked.pins[at])}" for at in (one, other)
        )
        joined = self._joined_by(one, other) or [number]
        groups = " and ".join(f"[{', '.join(self.config.same_device[group])}]" for group in joined)
        verb = "contradicts" if len(joined) == 1 else "contradict"
        keys = (
            *(f"same_device[{group}]" for group in joined),
            *dict.fromkeys((self._pin_key(one), self._pin_key(other))),
        )
        return Conflict(
            keys, f"same_device {groups} {verb} device_map, which sends {where}", ("same_device", number)
        )

    def excluded(
        self, pin: tuple[Device, int] | None, members: Sequence[int], offered: Collection[Device]
    ) -> Iterator[Conflict]:
        """Conflicts of one group: its pin, if there is one, and its atoms that some device must not hold."""
        if pin is not None:
            device, pinned = pin
            excluded = [at for at in members if device in self.asked.excluded[at]]
            if excluded:
                at = pinned if pinned in excluded else excluded[0]
                yield self._excluded_pin(device, pinned, at)
            return
        held_off = {device: at for at in reversed(members) for device in self.asked.excluded[at]}
        if set(offered) <= set(held_off):
            yield self._nowhere({device: held_off[device] for device in sorted(offered)})

    def _excluded_pin(self, device: Device, pinned: int, at: int) -> Conflict:
        why = self._why_excluded(device, at)
        link = "" if at == pinned else f", which shares a device with '{self.atoms[at].path}'"
        subject = "it" if at == pinned else f"'{self.atoms[at].path}'"
        message = (
            f"device_map sends '{self.atoms[pinned].path}' to {device_name(device)}{link}, "
            f"and {why.format(subject=subject)}"
        )
        key = self._bar_key(device, at)
        joined = [f"same_device[{group}]" for group in self._joined_by(at, pinned)] if at != pinned else []
        return Conflict((self._pin_key(pinned), *joined, key), message, self._bar_path(device, at))

    def _nowhere(self, held_off: Mapping[Device, int]) -> Conflict:
        paths = list(dict.fromkeys(self.atoms[at].path for at in held_off.values()))
        listed = " and ".join(f"'{path}'" for path in paths[:3])
        what = listed if len(paths) == 1 else f"{listed}, which share a device"
        reasons = ", ".join(
            self._why_excluded(device, at).format(subject=f"'{self.atoms[at].path}'")
            for device, at in held_off.items()
        )
        keys = dict.fromkeys(self._bar_key(device, at) for device, at in held_off.items())
        first = next(iter(held_off.items()))
        joined = [
            f"same_device[{group}]" for at in held_off.values() for group in self._joined_by(first[1], at)
        ]
        return Conflict(
            (*keys, *dict.fromkeys(joined)),
            f"no offered device may hold {what}: {reasons}",
            self._bar_path(*first),
        )

    def _why_excluded(self, device: Device, at: int) -> str:
        if self._forbids(device, at) is None:
            return "{subject} is trained, and changes to weights on disk are not written back"
        return f"'forbid' keeps {{subject}} off {device_name(device)}"

    def _forbids(self, device: Device, at: int) -> int | None:
        """Return the place in `forbid` of the key that keeps an atom off a device.

        None where training does.
        """
        path = self.atoms[at].path
        for item, key in enumerate(self.config.forbid.get(device, ())):
            if any(_related(path, named) for named in self.inventory.index.match(key)):
                return item
        return None

    def _bar_key(self, device: Device, at: int) -> str:
        if self._forbids(device, at) is None:
            return (
                "workload.trainable"
                if self.config.workload is not None and self.config.workload.trainable
                else "workload"
            )
        return f"forbid.{device}"

    def _bar_path(self, device: Device, at: int) -> DocumentPath:
        item = self._forbids(device, at)
        return ("workload",) if item is None else ("forbid", str(device), item)

    def _pin_key(self, at: int) -> str:
        atom = self.atoms[at]
        expansion = expand_keys(self.config.device_map, self.inventory.index)
        key = expansion.winner(atom.path)
        target = None if key is None else self.config.device_map[key]
        if target != self.asked.pins[at]:
            key = expansion.winner(atom.tensors[0])
        return f"device_map[{key}]" if key else "device_map"

    def _joined_by(self, one: int, other: int) -> list[int]:
        """Return the groups of `same_device` on the shortest way from one atom to another.

        Empty where ties are a part of it.
        """
        came: dict[int, list[int]] = {one: []}
        queue = [one]
        for at in queue:
            for number, group in enumerate(self.asked.together):
                if at in group:
                    for member in group:
                        if member not in came:
                            came[member] = [*came[at], number]
                            queue.append(member)
        return came.get(other, [])


def _related(path: str, named: str) -> bool:
    """Return whether one of two paths is the other or lies inside it."""
    return (
        path == named or not named or not path or path.startswith(f"{named}.") or named.startswith(f"{path}.")
    )
