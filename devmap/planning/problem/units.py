"""The order that is split: atoms with their loads, contracted to units that must share a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.config.values.device import Device
    from devmap.config.values.strategy import Strategy
    from devmap.inventory.atoms import Atom
    from devmap.inventory.model import Inventory

__all__ = ["AtomLoads", "PlacementUnit", "SingleUnits", "TieCopy", "contract", "weigh"]


@dataclass(frozen=True)
class AtomLoads:
    """Bytes of each atom, by its place in the order."""

    weight: tuple[int, ...]
    """Weights that it owns, its copies of tied ones that a pin keeps apart included."""
    buffers: tuple[int, ...]
    """Of `weight`, what stays on the executing device when it is streamed."""
    slot: tuple[int, ...]
    """What a slot must hold for it: all its weights, those it shares with others too."""
    held: tuple[int, ...]
    """What the workload keeps beside the weights wherever they live: gradients, optimizer states."""
    run: tuple[int, ...]
    """What the workload keeps where it is executed: KV cache, saved activations."""
    frozen: tuple[bool, ...]
    """Whether it may be streamed: trained weights are not, since nothing copies a change back."""

    def resident(self, at: int) -> int:
        """Return the bytes on a device that both holds and executes an atom."""
        return self.weight[at] + self.held[at] + self.run[at]


@dataclass(frozen=True, slots=True)
class TieCopy:
    """A second copy of a tied tensor that pins to different devices ask for."""

    atom: int
    """The atom that owns the copy."""
    tensor: str
    original: str
    nbytes: int


class PlacementUnit(NamedTuple):
    """Atoms that must share a device. It stands in the order where its first atom stands.

    A named tuple, since most units are single atoms, of which models have 10^5.
    """

    members: tuple[int, ...]
    pin: Device | None
    strategy: Strategy | None
    """Who places it, where it is not pinned."""
    excluded: frozenset[Device]
    """Devices that must not hold it."""


class SingleUnits(Sequence[PlacementUnit]):
    """The units of a model of which nothing is pinned, excluded or joined.

    Each atom by itself, made when somebody asks for it.
    """

    def __init__(self, count: int, strategy: Strategy) -> None:
        self.strategy = strategy
        self._places = range(count)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> PlacementUnit: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[PlacementUnit, ...]: ...
    def __getitem__(self, at: int | slice) -> PlacementUnit | tuple[PlacementUnit, ...]:
        if isinstance(at, slice):
            return tuple(self[one] for one in self._places[at])
        return PlacementUnit((self._places[at],), None, self.strategy, frozenset())


def contract(
    inventory: Inventory,
    atoms: Sequence[Atom],
    pins: Mapping[int, Device],
    strategies: Mapping[int, Strategy],
    excluded: Mapping[int, frozenset[Device]],
    together: Iterable[Sequence[int]],
    sizes: Mapping[str, int],
) -> tuple[Sequence[PlacementUnit], tuple[TieCopy, ...]]:
    """Join what `together` and ties hold on one device into units.

    Where pins keep a tie apart, say which copies that takes.

    `together` must not join different pins. Linear, but for the near-constant factor of union by the earliest
    member.

    Four atoms, of which 0 and 3 share a tensor, 1 and 2 are to be together, and 3 is pinned to cpu: the units
    are (0, 3) pinned to cpu, and (1, 2). Is 0 pinned to device 0 as well, the tie cannot hold them together:
    the units are (0), (1, 2), (3), and atom 3 owns a copy of the tensor.
    """
    together = tuple(together)
    nowhere: frozenset[Device] = frozenset()
    if not together and not inventory.ties:
        everyone = set(strategies.values())
        if not pins and not excluded and len(everyone) == 1:
            return SingleUnits(len(atoms), everyone.pop()), ()
        return tuple(
            [
                PlacementUnit((at,), pins.get(at), strategies.get(at), excluded.get(at, nowhere))
                for at in range(len(atoms))
            ]
        ), ()
    # A union-find forest. The root of a unit is its earliest atom, since a unit stands in the order there.
    parent = list(range(len(atoms)))
    pin_of: dict[int, Device] = dict(pins)
    for group in together:
        for other in group[1:]:
            _join(parent, pin_of, group[0], other)
    copies = _join_ties(inventory, atoms, parent, pin_of, sizes)
    members: dict[int, list[int]] = {}
    for at in range(len(atoms)):
        members.setdefault(at if parent[at] == at else _root(parent, at), []).append(at)
    units = tuple(
        PlacementUnit((root,), pins.get(root), strategies.get(root), excluded.get(root, nowhere))
        if len(group) == 1
        else PlacementUnit(
            tuple(group),
            pin_of.get(root),
            next((strategies[at] for at in group if at in strategies), None),
            nowhere.union(*(excluded[at] for at in group if at in excluded)),
        )
        for root, group in members.items()
    )
    return units, copies


def weigh(
    inventory: Inventory,
    atoms: Sequence[Atom],
    copies: Iterable[TieCopy],
    sizes: Mapping[str, int],
    *,
    offload_buffers: bool,
) -> tuple[list[int], Sequence[int], Sequence[int]]:
    """Return the bytes of weights, of buffers that stay where an atom is executed.

    And of its slot, for each atom.
    """
    weight = [atom.nbytes for atom in atoms]
    for copy in copies:
        weight[copy.atom] += copy.nbytes
    question = ("slots of atoms", offload_buffers)
    # Every attempt to plan (other budgets, relaxed wishes) asks this of the same atoms, hundreds of times.
    known: tuple[Sequence[Atom], Sequence[int], Sequence[int]] | None = inventory.remembered.get(question)
    if known is None or known[0] is not atoms:
        known = inventory.remembered[question] = (
            atoms,
            *_streamed(inventory, atoms, sizes, offload_buffers=offload_buffers),
        )
    return weight, known[1], known[2]


def _streamed(
    inventory: Inventory, atoms: Sequence[Atom], sizes: Mapping[str, int], *, offload_buffers: bool
) -> tuple[Sequence[int], Sequence[int]]:
    """Return the bytes of buffers that stay where an atom is executed, and of its slot, for each atom."""
    owner, tensors = inventory.owner, inventory.tensors
    buffers, slot = [0] * len(atoms), [atom.nbytes for atom in atoms]
    if not owner and (offload_buffers or all(tensor.kind != "buffer" for tensor in tensors.values())):
        return buffers, slot
    for at, atom in enumerate(atoms):
        names = atom.tensors
        if len(names) == 1 and names[0] not in owner:
            if not offload_buffers and tensors[names[0]].kind == "buffer":
                buffers[at], slot[at] = sizes[names[0]], 0
            continue
        stays, whole, seen = 0, 0, set()
        for name in names:
            first = owner.get(name, name)
            if not offload_buffers and tensors[name].kind == "buffer":
                stays += sizes[name] if first == name else 0
            elif first not in seen:
                seen.add(first)
                whole += sizes[first]
        buffers[at], slot[at] = stays, whole
    return buffers, slot


def _join_ties(
    inventory: Inventory,
    atoms: Sequence[Atom],
    parent: list[int],
    pin_of: dict[int, Device],
    sizes: Mapping[str, int],
) -> tuple[TieCopy, ...]:
    if not inventory.ties:
        return ()
    tied = set(inventory.owner)
    home = {name: at for at, atom in enumerate(atoms) for name in atom.tensors if name in tied}
    copies: list[TieCopy] = []
    apart: list[tuple[str, str]] = []
    for group in inventory.ties:
        for name in group[1:]:
            joined = _join(parent, pin_of, home[group[0]], home[name])
            apart += [] if joined else [(group[0], name)]
    copied: set[tuple[str, Device]] = set()
    for first, name in apart:
        device = pin_of[_root(parent, home[name])]
        # Pins that were joined by another tie of the group may have met on one device after all; and one
        # copy on a device serves all its atoms.
        if device != pin_of[_root(parent, home[first])] and (first, device) not in copied:
            copied.add((first, device))
            copies.append(TieCopy(home[name], name, first, sizes[first]))
    return tuple(copies)


def _join(parent: list[int], pin_of: dict[int, Device], one: int, other: int) -> bool:
    """Join two atoms; False where their pins differ. The earlier atom is the root."""
    first, second = sorted((_root(parent, one), _root(parent, other)))
    if first == second:
        return True
    pins = {pin_of[root] for root in (first, second) if root in pin_of}
    if len(pins) > 1:
        return False
    if pins:
        pin_of[first] = pins.pop()
    parent[second] = first
    return True


def _root(parent: list[int], at: int) -> int:
    while parent[at] != at:
        parent[at] = parent[parent[at]]
        at = parent[at]
    return at
