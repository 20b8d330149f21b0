"""What hangs where in a live or meta module: every place that holds a tensor, and which places share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from devmap.inventory.model import TensorKind

__all__ = ["ModuleScan", "TensorLocation", "scan_module"]


class TensorLocation(NamedTuple):
    """One place of the module tree that holds a tensor. A named tuple, since models have 10^5 of them."""

    name: str
    """As `state_dict()` names it."""
    module: str
    key: str
    kind: TensorKind
    persistent: bool
    owner: str
    """The first name of the same tensor object, in registration order: its own, unless it is tied to an
    earlier one."""
    table: dict[str, torch.Tensor | None]
    """The module's own dict of parameters or buffers; what stands there is what the module's code sees."""


@dataclass(frozen=True)
class ModuleScan:
    """A module's tensors by place and by owner."""

    modules: Mapping[str, nn.Module]
    """Each once, under its first path, a module before those inside it."""
    locations: tuple[TensorLocation, ...]
    """In the order of the modules."""
    owners: Mapping[str, TensorLocation]
    """The first place of each tensor, by its name."""
    on_meta: tuple[str, ...]
    """The owners that have no bytes yet."""
    second_names: Mapping[str, tuple[str, ...]]
    """The other names of a tensor's owner, where there are some."""

    def tensor(self, owner: str) -> torch.Tensor:
        """Return what stands there now."""
        first = self.owners[owner]
        found = first.table[first.key]
        assert found is not None
        return found

    def has(self, path: str) -> bool:
        """Return whether a path names a module or a tensor, be it one that has another path too."""
        if path in self.modules:
            return True
        outer, _, key = path.rpartition(".")
        module: nn.Module | None = self.modules[""]
        for part in outer.split(".") if outer else ():
            # As in `scan_module`.
            module = module._modules.get(part) if module is not None else None  # noqa: SLF001
        return module is not None and any(
            key in table
            for table in (module._modules, module._parameters, module._buffers)  # noqa: SLF001
        )


def scan_module(model: nn.Module) -> ModuleScan:
    """Look at every module once; a module that is reachable under two paths stands under the first."""
    modules: dict[str, nn.Module] = {}
    seen: set[int] = set()
    locations: list[TensorLocation] = []
    names: dict[int, str] = {}
    owners: dict[str, TensorLocation] = {}
    on_meta: list[str] = []
    second: dict[str, list[str]] = {}
    pending: list[tuple[str, nn.Module]] = [("", model)]
    while pending:  # in the order of named_modules(), which takes three times as long
        path, module = pending.pop()
        identity = id(module)
        if identity in seen:
            continue
        seen.add(identity)
        modules[path] = module
        own = module.__dict__  # a module's own tables: torch offers no public way to them
        prefix = f"{path}." if path else ""
        if own["_modules"]:
            pending += [
                (prefix + key, child) for key, child in reversed(own["_modules"].items()) if child is not None
            ]
        kind: TensorKind = "parameter"
        for table in (own["_parameters"], own["_buffers"]):
            for key, tensor in table.items():
                if tensor is None:
                    continue
                name = prefix + key
                owner = names.setdefault(id(tensor), name)
                persistent = kind == "parameter" or key not in own["_non_persistent_buffers_set"]
                location = TensorLocation(name, path, key, kind, persistent, owner, table)
                locations.append(location)
                if owner is name:
                    owners[name] = location
                    if tensor.is_meta:
                        on_meta.append(name)
                else:
                    second.setdefault(owner, []).append(name)
            kind = "buffer"
    return ModuleScan(
        modules,
        tuple(locations),
        owners,
        tuple(on_meta),
        {owner: tuple(others) for owner, others in second.items()},
    )
