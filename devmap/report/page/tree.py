"""A model as the tree of modules that a treemap draws: bytes, places, and what is tied to what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.inventory.atoms import tensor_sizes
from devmap.report.page.frame import color_of
from devmap.report.plan_bars import device_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.planning.why.overview import ExplainedRun, PlanOverview

__all__ = ["treemap_data"]

_SPREAD = -1
"""The place, or the run, of a module whose parts have several."""


@dataclass(slots=True)
class _TreeNode:
    """One module, or one tensor that is placed by itself."""

    name: str
    class_name: str
    nbytes: int = 0
    place: int | None = None
    """A number of `_NodePlaces`; None before anything is known, `_SPREAD` where parts differ."""
    run: int | None = None
    children: dict[str, _TreeNode] = field(default_factory=dict)
    note: str = ""

    def add(self, nbytes: int, place: int, run: int) -> None:
        """Count a tensor that lies in or below this node."""
        self.nbytes += nbytes
        self.place = place if self.place in {None, place} else _SPREAD
        self.run = run if self.run in {None, run} else _SPREAD

    def plain(self) -> list[object]:
        """Return the node as `page.js` reads it."""
        place, run = (_SPREAD if one is None else one for one in (self.place, self.run))
        children = [child.plain() for child in self.children.values()]
        return [self.name, self.class_name, self.nbytes, place, run, children, self.note]


class _NodePlaces:
    """The pairs of home and executing device that a plan has, by number."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = {device: at for at, device in enumerate(devices)}
        self.pairs: dict[tuple[int, int], int] = {}

    def number(self, home: Device, executes_on: Device) -> int:
        pair = (self.devices[home], self.devices[executes_on])
        return self.pairs.setdefault(pair, len(self.pairs))


def treemap_data(overview: PlanOverview, inventory: Inventory) -> dict[str, object]:
    """Return what the script of a page draws: devices, places, reasons of runs, the tree. Linear in tensors.

    A tied tensor counts at its first name; modules whose weights are all tied stand in the tree with no
    bytes and a note, so that a search finds them.
    """
    plan = overview.plan
    devices = list(
        dict.fromkeys(
            [
                *(use.device for use in plan.devices),
                *(device for run in overview.runs for device in (run.home, run.executes_on)),
            ]
        )
    )
    places = _NodePlaces(devices)
    tree = _tree(overview, inventory, places)
    return {
        "devices": [[device_name(device, plan), color_of(device.plain)] for device in devices],
        "places": [list(pair) for pair in places.pairs],
        "runs": [_sentences(run) for run in overview.runs],
        "tree": tree.plain(),
    }


def _tree(overview: PlanOverview, inventory: Inventory, places: _NodePlaces) -> _TreeNode:
    plan = overview.plan
    number_of = {placement.path: at for at, placement in enumerate(plan.placements)}
    run_of = [at for at, run in enumerate(overview.runs) for _ in range(run.start, run.end)]
    sizes = tensor_sizes(inventory, plan.dtype)
    root = _TreeNode("", inventory.modules.get("", ""))
    for name in inventory.tensors:
        at = _covering(name, number_of)
        if at is None:
            continue
        placement = plan.placements[at]
        owner = inventory.owner.get(name, name)
        nbytes = sizes[name] if owner == name else 0
        path = name if placement.path == name else name.rpartition(".")[0]
        place = places.number(placement.home, placement.executes_on)
        nodes = _way(root, path, inventory)
        if not nbytes:
            if owner != name:
                nodes[-1].note = f"tied to {owner}: its bytes are counted there"
            continue
        for node in nodes:
            node.add(nbytes, place, run_of[at])
    return root


def _covering(name: str, number_of: dict[str, int]) -> int | None:
    """Return the placement that a tensor belongs to: that of the nearest name above it."""
    path = name
    while path not in number_of:
        if not path:
            return None
        path = path.rpartition(".")[0]
    return number_of[path]


def _way(root: _TreeNode, path: str, inventory: Inventory) -> list[_TreeNode]:
    """Return the nodes from the root to a path, made where they are not there yet."""
    nodes = [root]
    walked = ""
    for name in path.split(".") if path else ():
        walked = f"{walked}.{name}" if walked else name
        children = nodes[-1].children
        if name not in children:
            children[name] = _TreeNode(name, inventory.modules.get(walked, ""))
        nodes.append(children[name])
    return nodes


def _sentences(run: ExplainedRun) -> Iterable[str]:
    return [factor.sentence for factor in run.factors]
