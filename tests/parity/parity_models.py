"""Small modules for the comparison with Accelerate, and what a map does with them, worked out here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from hypothesis import strategies as st
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["Block", "Leaf", "above", "chain", "device_of", "homes", "modules", "torn", "total_bytes"]


class Leaf(nn.Module):
    """So many bytes in one parameter."""

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(nbytes, dtype=torch.uint8, device="meta"), requires_grad=False)


class Block(nn.Module):
    """A class to keep whole."""


class Other(nn.Module):
    """A class that may be split."""


def chain(*sizes: int) -> nn.Module:
    """Leaves `m0`, `m1`, ... of so many bytes."""
    model = nn.Module()
    for at, size in enumerate(sizes):
        model.add_module(f"m{at}", Leaf(size))
    return model


def total_bytes(model: nn.Module) -> int:
    return sum({id(tensor): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}.values())


def above(name: str) -> Iterator[str]:
    """A path and all above it, the root last."""
    yield name
    while name:
        name = name.rpartition(".")[0]
        yield name


def device_of(device_map: Mapping[str, int | str], name: str) -> int | str | None:
    """The longest key's device."""
    return next((device_map[path] for path in above(name) if path in device_map), None)


def homes(model: nn.Module, device_map: Mapping[str, int | str]) -> dict[str, int | str | None]:
    """The device of every parameter and buffer under each of its names."""
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    names += [name for name, _ in model.named_buffers(remove_duplicate=False)]
    return {name: device_of(device_map, name) for name in names}


def torn(model: nn.Module, placed: Mapping[str, int | str | None], whole: Collection[str]) -> list[str]:
    """The modules of these classes and the tied parameters that lie on several devices."""
    found = []
    for path, module in model.named_modules(remove_duplicate=False):
        inside = {device for name, device in placed.items() if path in above(name)}
        if type(module).__name__ in whole and len(inside) > 1:
            found.append(path)
    devices: dict[int, set[int | str | None]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        devices.setdefault(id(parameter), set()).add(placed[name])
        if len(devices[id(parameter)]) > 1:
            found.append(name)
    return found


@st.composite
def modules(draw: st.DrawFn) -> nn.Module:
    """Random trees: parameters and buffers on split modules, names that are prefixes of others.

    Ties across the tree.
    """

    def grow(depth: int) -> nn.Module:
        module = draw(st.sampled_from([Block, Other]))()
        for number in range(draw(st.integers(0, 2))):
            size = draw(st.integers(1, 9))
            module.register_parameter(
                f"p{number}",
                nn.Parameter(torch.empty(size, dtype=torch.uint8, device="meta"), requires_grad=False),
            )
        if draw(st.booleans()):
            module.register_buffer(
                "state", torch.empty(draw(st.integers(1, 9)), dtype=torch.uint8, device="meta")
            )
        for name in (
            draw(st.lists(st.sampled_from(["1", "10", "a", "ab"]), max_size=3, unique=True))
            if depth < 2
            else []
        ):
            module.add_module(name, grow(depth + 1))
        if not list(module.parameters()):
            module.add_module("leaf", Leaf(draw(st.integers(1, 9))))
        return module

    model = grow(0)
    places = [(module, name) for module in model.modules() for name in module._parameters]
    for _ in range(draw(st.integers(0, 2))):
        (one, first), (other, second) = draw(st.tuples(st.sampled_from(places), st.sampled_from(places)))
        other._parameters[second] = one._parameters[first]
    return model
