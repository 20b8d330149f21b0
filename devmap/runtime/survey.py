"""What hangs where in a live or meta module: every place that holds a tensor, and which places share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from devmap.inventory.model import TensorKind

__all__ = ["Spot", "Survey", "survey"]


@dataclass(frozen=True, slots=True)
class Spot:
    """One place of the module tree that holds a tensor."""

    module: str
    key: str
    kind: TensorKind
    persistent: bool
    owner: str
    """The first name of the same tensor object, in registration order: its own, unless it is tied to an earlier one."""
    table: dict[str, torch.Tensor | None]
    """The module's own dict of parameters or buffers; what stands there is what the module's code sees."""

    @property
    def name(self) -> str:
        """As `state_dict()` names it."""
        return f"{self.module}.{self.key}" if self.module else self.key


@dataclass(frozen=True)
class Survey:
    """A module's tensors by place and by owner."""

    modules: Mapping[str, nn.Module]
    """Each once, under its first path."""
    paths: frozenset[str]
    """All paths, those under which a module is reached a second time too."""
    names: frozenset[str]
    """All names of tensors, second ones too."""
    spots: tuple[Spot, ...]
    tensors: Mapping[str, torch.Tensor]
    """The tensor that each owner's name stands for."""

    def tied(self) -> Mapping[str, tuple[str, ...]]:
        """For each owner all names of its tensor, its own first."""
        names: dict[str, list[str]] = {}
        for spot in self.spots:
            names.setdefault(spot.owner, []).append(spot.name)
        return {owner: tuple(group) for owner, group in names.items()}


def survey(model: nn.Module) -> Survey:
    """Look at every module once; a module that is reachable under two paths stands under the first."""
    modules = dict(model.named_modules())
    spots: list[Spot] = []
    owners: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    for path, module in modules.items():
        tables: tuple[tuple[TensorKind, dict[str, torch.Tensor | None]], ...] = (
            ("parameter", module._parameters),  # noqa: SLF001 - torch offers no public way to a module's own tables
            ("buffer", module._buffers),  # noqa: SLF001
        )
        for kind, table in tables:
            for key, tensor in table.items():
                if tensor is None:
                    continue
                name = f"{path}.{key}" if path else key
                owner = owners.setdefault(id(tensor), name)
                tensors.setdefault(owner, tensor)
                persistent = kind == "parameter" or key not in module._non_persistent_buffers_set  # noqa: SLF001
                spots.append(Spot(path, key, kind, persistent, owner, table))
    paths: set[str] = set()
    names: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        paths.add(path)
        names.update(f"{path}.{key}" if path else key for key in (*module._parameters, *module._buffers))  # noqa: SLF001 - as above
    return Survey(modules, frozenset(paths), frozenset(names), tuple(spots), tensors)
