"""Which parts of a module tree each stage runs, and what is left for every rank to run.

A *part* is a module whose tensors all belong to one stage: its stage alone loads it and runs it. The modules
above the parts, and those without tensors, are the *outer* modules: each rank runs their code. A tensor that
hangs directly on an outer module is an *outer tensor*; the stage that owns it loads it, the others ask for it
where the code uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from devmap.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch

    from devmap.runtime.storage.module_scan import ModuleScan

__all__ = ["Part", "Parts", "StageTensor", "find_parts"]


@dataclass(frozen=True)
class Part:
    """A module that one stage runs as a whole."""

    path: str
    stage: int
    module: nn.Module
    layers: tuple[int, ...]
    """The layers of a cache that its code writes, by the `layer_idx` of the modules inside; empty where they
    do not say."""


@dataclass(frozen=True)
class StageTensor:
    """A place of the module tree that holds a tensor."""

    name: str
    stage: int | None
    """None for a buffer of outer code that is no stage's: every rank has it."""
    is_outer: bool
    """Whether it hangs directly on an outer module."""
    owner: str
    """The first name of the same tensor in the whole model: its own, unless it is tied."""
    persistent: bool
    """Whether `state_dict()` holds it."""
    table: dict[str, torch.Tensor | None]
    key: str


@dataclass(frozen=True)
class Parts:
    """A module tree divided among stages."""

    parts: tuple[Part, ...]
    """In the order of the module tree."""
    tensors: tuple[StageTensor, ...]
    """Of parts, computed buffers included; of outer modules those that are loaded."""


def find_parts(found: ModuleScan, assignment: Mapping[str, int], no_split: Iterable[str] = ()) -> Parts:
    """Divide a model by the stages of its modules.

    A part is as large as it can be, but it holds no block of a `no_split` class inside: a stack of blocks
    stays outer code, so that caches are followed block by block. The root itself is never a part.

    Args:
        found: what `devmap.runtime.storage.module_scan.scan_module` says of the model.
        assignment: paths of modules or parameters, and the stage (from 0) of each; the longest prefix of a
            tensor's name counts. A tied name without a stage goes with the first name of its tensor.
        no_split: names of classes of blocks.

    Raises:
        UsageError: naming tensors that have no stage.
    """
    stages = _stages(found, assignment)
    below = _stages_below(found, stages)
    classes = set(no_split)
    holds_block: set[str] = set()
    for path, module in found.modules.items():
        if type(module).__name__ in classes:
            holds_block.update(_above(path))
    parts: list[Part] = []
    inside: dict[str, int] = {}
    """The stage of every module in a part."""
    for path, module in found.modules.items():  # a module stands before those inside it
        outer = path.rpartition(".")[0]
        if path and outer in inside:
            inside[path] = inside[outer]
            continue
        own = below.get(path, set())
        is_called = type(module).forward is not nn.Module.forward
        is_block = type(module).__name__ in classes
        if path and len(own) == 1 and is_called and (is_block or path not in holds_block):
            inside[path] = next(iter(own))
            parts.append(Part(path, inside[path], module, _layers(module)))
    tensors = [
        StageTensor(
            location.name,
            inside.get(location.module, stages[location.name]),
            location.module not in inside,
            location.owner,
            location.persistent,
            location.table,
            location.key,
        )
        for location in found.locations
        if location.module in inside or location.persistent
    ]
    return Parts(tuple(parts), tuple(tensors))


def _stages(found: ModuleScan, assignment: Mapping[str, int]) -> dict[str, int | None]:
    """Return the stage of each tensor by name; None for a buffer that no key covers."""
    stages: dict[str, int | None] = {}
    for location in found.locations:
        stage = _stage_of(location.name, assignment)
        stages[location.name] = stages.get(location.owner) if stage is None else stage
    homeless = [
        location.name
        for location in found.locations
        if stages[location.name] is None and location.kind == "parameter"
    ]
    if homeless:
        more = f" and {len(homeless) - 3} more" if len(homeless) > 3 else ""
        raise UsageError(
            f"no stage is given for {', '.join(map(repr, homeless[:3]))}{more}",
            help="the assignment of stages must cover every parameter of the model",
        )
    return stages


def _stages_below(found: ModuleScan, stages: Mapping[str, int | None]) -> dict[str, set[int]]:
    """Return the stages of the tensors in each module, and in those inside it."""
    below: dict[str, set[int]] = {}
    for location in found.locations:
        stage = stages[location.name]
        if stage is not None:  # a buffer that no key covers goes with the module that holds it
            for path in (location.module, *_above(location.module)):
                below.setdefault(path, set()).add(stage)
    return below


def _above(path: str) -> Iterator[str]:
    """Yield the paths of the modules around one, the root last."""
    while path:
        path = path.rpartition(".")[0]
        yield path


def _stage_of(name: str, assignment: Mapping[str, int]) -> int | None:
    path = name
    while True:
        if path in assignment:
            return assignment[path]
        if not path:
            return None
        path = path.rpartition(".")[0]


def _layers(module: nn.Module) -> tuple[int, ...]:
    found = {
        index
        for inner in module.modules()
        if isinstance(index := inner.__dict__.get("layer_idx", inner.__dict__.get("layer_index")), int)
    }
    return tuple(sorted(found))
