"""What may be typed at a place of a config: keys, module paths of its model, devices, words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from devmap.config.model.machines import PRESETS, preset
from devmap.config.model.nodes import flattened, spread_keys
from devmap.config.values.strategy import MEANINGS
from devmap.lsp.schema import keys_at, words_at
from devmap_validators.checks.policies import BUILT_IN_POLICIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.config.model.placement_config import MachineDevice
    from devmap.config.values.device import Device
    from devmap.inventory.model import Inventory
    from devmap.lsp.cursor import Cursor
    from devmap.lsp.known import Known

__all__ = ["Proposal", "proposals_at"]

_MOST_MODULES = 500
_DEVICES = ("0", "1", "2", "3", "cpu", "disk")

Kind = Literal["key", "module", "class", "word"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One thing that may be typed."""

    text: str
    kind: Kind
    detail: str = ""
    """A few words beside it."""
    documentation: str = ""
    """Markdown."""


def proposals_at(known: Known, cursor: Cursor) -> Iterator[Proposal]:
    """Yield what may stand at a cursor and begins with the word that is typed, the likeliest first."""
    seen: set[str] = set()
    for proposal in _all_at(known, cursor):
        if proposal.text not in seen and proposal.text.startswith(cursor.word):
            seen.add(proposal.text)
            yield proposal


def _all_at(known: Known, cursor: Cursor) -> Iterator[Proposal]:
    path = _without_profile(cursor.path)
    if cursor.key is not None:
        yield from _values(known, (*path, cursor.key), is_list=False)
        return
    if cursor.in_list:
        yield from _values(known, path, is_list=True)
        return
    if path[:1] == ("device_map",):
        yield from _modules(known.inventory, cursor.word)
        return
    if path in {("max_memory",), ("headroom",), ("forbid",)}:
        for device in (*_devices(known), *_devices_of_nodes(known)):
            yield Proposal(device, "key", "device")
    for key, description in keys_at(path).items():
        yield Proposal(key, "key", documentation=description)


def _values(known: Known, path: tuple[str, ...], *, is_list: bool) -> Iterator[Proposal]:
    """Yield what the value at a path may be.

    What only this config or its model knows first, then the schema's words.
    """
    head = path[0] if path else ""
    if head == "device_map":
        if len(path) == 2:
            # over several nodes a module lies on a device of one of them
            devices = _devices_of_nodes(known) or _devices(known)
            yield from (Proposal(device, "word", "device") for device in devices)
        path = ("device_map",)  # every target of a map is what the whole map may be
    elif head in {"same_device", "forbid"} and is_list:
        yield from _modules(known.inventory, "")
    else:
        yield from _named(known, path)
    for word in words_at(path):
        yield Proposal(word, "word", documentation=MEANINGS.get(word, ""))


def _named(known: Known, path: tuple[str, ...]) -> Iterator[Proposal]:
    """Names that no schema can list."""
    key = path[0] if path else ""
    if key == "no_split_module_classes" and known.inventory is not None:
        yield from (
            Proposal(name, "class", "class") for name in sorted(set(known.inventory.modules.values()))
        )
    elif path in {("machine",), ("machine", "name")} or (
        path[:2] == ("machine", "nodes") and path[3:] in {(), ("name",)}
    ):
        yield from (Proposal(name, "word", "machine") for name in PRESETS)
    elif key == "policies":
        yield from (Proposal(name, "word", "policy that comes with devmap") for name in BUILT_IN_POLICIES)


def _modules(inventory: Inventory | None, word: str) -> Iterator[Proposal]:
    """Module paths that begin with a word, level by level: the next step of a long path comes first."""
    if inventory is None:
        return
    fitting = [path for path in inventory.modules if path.startswith(word)]
    if not word:
        yield Proposal('""', "module", "the whole model, or all the rest")
    numbered = {path.rpartition(".")[0] for path in fitting if path.rpartition(".")[2].isdecimal()}
    by_depth = sorted((path for path in fitting if path), key=lambda path: path.count("."))
    for path in by_depth[:_MOST_MODULES]:
        yield Proposal(path, "module", inventory.modules[path])
        if path in numbered:
            last = len(inventory.children[path]) - 1
            yield Proposal(f"{path}[0-{last}]", "module", f"a range: {last + 1} modules")


def _devices(known: Known) -> tuple[str, ...]:
    offered = () if known.config is None else tuple(str(one.plain) for one in known.config.max_memory or {})
    return offered or _DEVICES


def _devices_of_nodes(known: Known) -> tuple[str, ...]:
    """Return the devices of a config for several nodes that it offers, each with its node; else nothing."""
    machine = known.config.machine if known.config is not None else None
    if known.config is None or machine is None or not machine.nodes:
        return ()
    nodes = {
        name: node if node.devices else node.model_copy(update={"devices": _devices_of_preset(node.name)})
        for name, node in machine.nodes.items()
    }
    machine = flattened(machine.model_copy(update={"nodes": nodes}))
    budgets = known.config.max_memory
    return tuple(map(str, machine.devices if budgets is None else spread_keys(budgets, machine)[0]))


def _devices_of_preset(name: str) -> Mapping[Device, MachineDevice]:
    machine = preset(name)
    return {} if machine is None else machine.devices


def _without_profile(path: tuple[str, ...]) -> tuple[str, ...]:
    """Return a path inside a profile as it would be outside of it: a profile holds what a config does."""
    return path[2:] if path[:1] == ("profiles",) and len(path) >= 2 else path
