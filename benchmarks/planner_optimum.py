"""The best contiguous split and a judge of device maps, written from the model alone.

No planner's code is used here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    import torch
    from torch import nn

__all__ = ["Verdict", "best_split", "judge", "total_bytes", "unit_bytes"]


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def total_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, a tied one once."""
    return sum({id(tensor): tensor.nbytes for _, tensor in _tensors(model)}.values())


def unit_bytes(model: nn.Module, whole: Collection[str]) -> list[int]:
    """Bytes of what is placed as one, in the model's order.

    What tied tensors join stands where its first part stands.
    """
    group_of: dict[int, int] = {}
    groups: list[list[torch.Tensor]] = []
    for parts in _atoms(model, whole):
        met = sorted({group_of[id(tensor)] for tensor in parts if id(tensor) in group_of})
        group = met[0] if met else len(groups)
        if not met:
            groups.append([])
        for other in met[1:]:
            groups[group] += groups[other]
            groups[other] = []
        groups[group] += parts
        for tensor in groups[group]:
            group_of[id(tensor)] = group
    return [sum({id(tensor): tensor.nbytes for tensor in parts}.values()) for parts in groups if parts]


def _atoms(module: nn.Module, whole: Collection[str]) -> Iterator[list[torch.Tensor]]:
    # `named_children()` drops duplicates.
    children = [child for child in module._modules.values() if child is not None]  # noqa: SLF001
    if not children or type(module).__name__ in whole:
        tensors = [tensor for _, tensor in _tensors(module)]
        if tensors:
            yield tensors
        return
    for _, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield [tensor]
    for child in children:
        yield from _atoms(child, whole)


def best_split(loads: list[int], devices: int) -> int:
    """The smallest possible largest sum when `loads` are cut into at most so many runs.

    Dynamic programming over cuts: the best for the first `end` loads on `n` devices is the least, over where
    the last run starts, of the larger of that run and the best of what stands before it on `n - 1`.
    """
    sums = [0]
    for load in loads:
        sums.append(sums[-1] + load)
    best = list(sums)
    for _ in range(devices - 1):
        longer = [0]
        for end in range(1, len(sums)):
            least = best[end]
            for start in range(end - 1, -1, -1):
                run = sums[end] - sums[start]
                if run >= least:
                    break
                least = min(least, max(run, best[start]))
            longer.append(least)
        best = longer
    return best[-1]


@dataclass
class Verdict:
    """What a device map does."""

    nbytes: dict[int | str, int] = field(default_factory=dict)
    """Bytes on each device, a tied tensor once on each; on cpu and disk parameters alone, since buffers may
    stay elsewhere."""
    faults: set[str] = field(default_factory=set)
    """Of `incomplete`, `over budget`, `unasked tier`, `torn`."""

    @property
    def largest(self) -> int:
        """Bytes on the fullest device."""
        return max(self.nbytes.values(), default=0)

    @property
    def spills(self) -> bool:
        """Whether cpu or disk hold anything."""
        return bool({"cpu", "disk"} & {device for device, nbytes in self.nbytes.items() if nbytes})


def judge(
    model: nn.Module,
    device_map: Mapping[str, int | str],
    budgets: Mapping[int | str, int],
    whole: Collection[str],
) -> Verdict:
    """Whether a map covers what `state_dict()` holds, stays on the offered devices and in their budgets.

    And tears no block and no tie.
    """
    verdict = Verdict()
    persistent = set(model.state_dict())
    counted: set[tuple[int, int | str]] = set()
    device_of_tie: dict[int, int | str] = {}
    blocks = _outermost_blocks(model, whole)
    device_of_block: dict[str, int | str] = {}
    parameters = {id(parameter) for parameter in model.parameters()}
    for name, tensor in _tensors(model):
        device = _device(device_map, name)
        if device is None:
            verdict.faults |= {"incomplete"} if name in persistent else set()
            continue
        block = next((path for path in _above(name) if path in blocks), None)
        if device_of_tie.setdefault(id(tensor), device) != device or (
            block is not None and device_of_block.setdefault(block, device) != device
        ):
            verdict.faults.add("torn")
        if (id(tensor), device) not in counted and (isinstance(device, int) or id(tensor) in parameters):
            counted.add((id(tensor), device))
            verdict.nbytes[device] = verdict.nbytes.get(device, 0) + tensor.nbytes
    if any(device not in budgets for device in device_map.values()):
        verdict.faults.add("unasked tier")
    if any(nbytes > budgets.get(device, nbytes) for device, nbytes in verdict.nbytes.items()):
        verdict.faults.add("over budget")
    return verdict


def _device(device_map: Mapping[str, int | str], name: str) -> int | str | None:
    return next((device_map[path] for path in _above(name) if path in device_map), None)


def _above(name: str) -> Iterator[str]:
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name


def _outermost_blocks(model: nn.Module, whole: Collection[str]) -> set[str]:
    found: set[str] = set()
    for path, module in model.named_modules():
        if type(module).__name__ in whole and not any(above in found for above in _above(path)):
            found.add(path)
    return found
