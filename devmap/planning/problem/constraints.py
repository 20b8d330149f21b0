"""What the config asks of single modules.

Pins, strategies of subtrees, `same_device`, `forbid`, resolved to atoms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.device import DISK, Device, device_name, device_names
from devmap.errors import DeviceMapError, ResolutionError
from devmap.inventory.patterns import PathIndex, expand_keys
from devmap.inventory.stored_names import runtime_path
from devmap.planning.problem.conflicts import Requested, conflicts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from devmap.config.model.placement_config import PlacementConfig
    from devmap.config.values.strategy import Strategy
    from devmap.config.yaml.faults import DocumentPath
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory
    from devmap.inventory.patterns import Expansion
    from devmap.planning.problem.conflicts import Conflict

__all__ = ["Constraints", "MapProblem", "atoms_named", "constraints_of"]


@dataclass(frozen=True, slots=True)
class MapProblem:
    """One thing that is wrong with a manual map."""

    code: str
    message: str
    path: DocumentPath = ()
    """The config key that it is about."""


@dataclass(frozen=True)
class Constraints:
    """For atoms by their place in the order.

    Where they are pinned, who places them, what must not hold them.
    """

    pins: Mapping[int, Device]
    strategies: Mapping[int, Strategy]
    excluded: Mapping[int, frozenset[Device]]
    together: tuple[tuple[int, ...], ...]


def constraints_of(
    config: PlacementConfig,
    inventory: Inventory,
    atoms: Sequence[Atom],
    offered: Collection[Device],
    trained: Collection[int],
) -> Constraints:
    """Return the constraints of a config.

    `trained` are the atoms that training changes, which the disk cannot hold.

    Raises:
        DeviceMapError: listing keys that name nothing, tensors that no key names and classes that straddle
            devices.
        ResolutionError: when constraints contradict each other, naming them; when one asks for a device that
            nobody offers.
    """
    whole_model = set(config.device_map) == {""}
    index = inventory.index if not whole_model or config.same_device or config.forbid else PathIndex(())
    places = range(len(atoms))
    targets = (
        dict.fromkeys(places, config.device_map[""])
        if whole_model
        else dict(enumerate(_targets(config, inventory, atoms)))
    )
    pinned = not whole_model or isinstance(config.device_map[""], Device)
    pins = {at: target for at, target in targets.items() if isinstance(target, Device)} if pinned else {}
    strategies = {at: target for at, target in targets.items() if not isinstance(target, Device)}
    _check_offered(atoms, pins, offered)
    together = tuple(atoms_named(keys, index, atoms, "same_device") for keys in config.same_device)
    excluded: dict[int, frozenset[Device]] = {}
    for device, keys in config.forbid.items():
        for at in atoms_named(keys, index, atoms, "forbid"):
            excluded[at] = excluded.get(at, frozenset()) | {device}
    for at in trained:
        excluded[at] = excluded.get(at, frozenset()) | {DISK}
    constraints = Constraints(pins, strategies, excluded, tuple(group for group in together if group))
    if together or excluded:
        _refuse(
            conflicts(
                config, inventory, atoms, Requested(pins, excluded, together, frozenset(trained)), offered
            )
        )
    return constraints


def atoms_named(keys: Iterable[str], index: PathIndex, atoms: Sequence[Atom], where: str) -> tuple[int, ...]:
    """Return the atoms at, below or around what the keys name, in order.

    Raises:
        DeviceMapError: when a key names nothing.
    """
    named: set[str] = set()
    for key in keys:
        paths = index.match(key)
        if not paths:
            problem = MapProblem("DM201", f"'{key}' in '{where}' names no module or tensor of the model")
            raise DeviceMapError(f"'{where}' does not fit the model", problems=[problem])
        named.update(paths)
    around = {above for path in named for above in _with_parents(path)}
    return tuple(
        at
        for at, atom in enumerate(atoms)
        if atom.path in around or any(above in named for above in _with_parents(atom.path))
    )


def _unmatched_text(inventory: Inventory, key: str) -> str:
    stored = runtime_path(inventory, key)
    called = f": the checkpoint's name for what is '{stored}' at run time" if stored is not None else ""
    return f"'{key}' names no module or tensor of the model{called}"


def _targets(config: PlacementConfig, inventory: Inventory, atoms: Sequence[Atom]) -> list[Device | Strategy]:
    """Return what the longest key says for each atom; every problem of the map at once."""
    expansion = expand_keys(config.device_map, inventory.index)
    problems = [MapProblem("DM201", _unmatched_text(inventory, key)) for key in expansion.unmatched]
    targets: list[Device | Strategy] = []
    for atom, keys in zip(atoms, _keys_of(expansion, inventory, atoms), strict=True):
        found = dict.fromkeys([config.device_map[key] for key in keys if key is not None])
        if None in keys:
            problems.append(MapProblem("DM202", f"nothing places '{atom.path}'"))
        elif len(found) > 1 and atom.is_tensor is False:
            where = ", ".join(f"'{key}' to {config.device_map[key]}" for key in keys if key is not None)
            problems.append(
                MapProblem(
                    "DM203", f"'{atom.path}' ({atom.class_name}) may not be split, and the map sends {where}"
                )
            )
        targets.append(next(iter(found), DISK))  # DISK: the map is refused below
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise DeviceMapError(
            f"the device map does not fit the model: {count}",
            problems=problems,
            help="every module needs a key, or '' for everything that no other key names",
        )
    return targets


def _keys_of(
    expansion: Expansion, inventory: Inventory, atoms: Sequence[Atom]
) -> Iterator[tuple[str | None, ...]]:
    """Yield the keys that decide for each atom, most often one.

    More where inner modules or tensors have keys of their own.
    """
    anchors = expansion.anchors
    runs = iter(
        [
            (end, None if path is None else anchors[path])
            for _, end, path in inventory.flat_index.runs(anchors)
        ]
    )
    until, key = next(runs, (0, None))
    end = 0
    for atom in atoms:
        start, end = end, end + len(atom.tensors)
        if until <= start:
            until, key = next(runs)
        keys = [key]
        while until < end:
            until, key = next(runs)
            keys.append(key)
        yield (key,) if len(keys) == 1 else tuple(dict.fromkeys(keys))


def _with_parents(path: str) -> list[str]:
    found = [path]
    while path:
        path = path.rpartition(".")[0]
        found.append(path)
    return found


def _check_offered(atoms: Sequence[Atom], pins: Mapping[int, Device], offered: Collection[Device]) -> None:
    for at, device in pins.items():
        if device not in offered:
            raise ResolutionError(
                f"the map sends '{atoms[at].path}' to {device_name(device)}, which is not offered",
                help=f"add it to max_memory, or change the map; offered: {device_names(offered)}",
            )


def _refuse(found: Sequence[Conflict]) -> None:
    if found:
        raise ResolutionError(
            f"constraints in conflict: {'; '.join(' and '.join(one.keys) for one in found)}",
            problems=[MapProblem("DM210", one.message, one.path) for one in found],
            help="remove one of each group",
        )
