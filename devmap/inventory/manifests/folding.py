"""A module tree with its repeated parts folded.

Numbered siblings that are alike, one after the other, become one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.inventory.model import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.inventory.model import Inventory

__all__ = ["Fold", "Leaf", "Segment", "expand", "fold", "join", "names_in", "split_path"]

Segment = str | range
"""One step of a path: a child's name, or a run of numbered children."""

Leaf = tuple[str, Tensor]
"""A tensor by its last name; the name that the Tensor carries is not used."""


@dataclass(slots=True)
class Fold:
    """One module, or a run of numbered ones that are alike."""

    class_name: str
    leaves: tuple[Leaf, ...] = ()
    children: list[tuple[Segment, Fold]] = field(default_factory=list)


def fold(inventory: Inventory) -> Fold:
    """Return the folded tree. Linear: equal subtrees are found by interning them from the leaves up."""
    known: dict[tuple[object, ...], int] = {}
    folds: list[Fold] = []
    number_of: dict[str, int] = {}
    for path in reversed(list(inventory.modules)):
        leaves = tuple((tensor.name.rpartition(".")[2], tensor) for tensor in inventory.own_tensors[path])
        children = _runs([(child.rpartition(".")[2], number_of[child]) for child in inventory.children[path]])
        shape = tuple(
            (name, tensor.shape, tensor.dtype, tensor.kind, tensor.persistent) for name, tensor in leaves
        )
        key = (inventory.modules[path], shape, tuple(children))
        number = known.setdefault(key, len(folds))
        if number == len(folds):
            folds.append(
                Fold(
                    inventory.modules[path], leaves, [(segment, folds[child]) for segment, child in children]
                )
            )
        number_of[path] = number
    return folds[number_of[""]]


def _runs(children: list[tuple[str, int]]) -> list[tuple[Segment, int]]:
    found: list[tuple[Segment, int]] = []
    for name, number in children:
        place = int(name) if _NUMBER.match(name) else None
        if found and place is not None and found[-1][1] == number:
            last = found[-1][0]
            run = (
                last
                if isinstance(last, range)
                else range(int(last), int(last) + 1)
                if _NUMBER.match(last)
                else range(0)
            )
            if run and run.stop == place:
                found[-1] = (range(run.start, place + 1), number)
                continue
        found.append((name, number))
    return found


def expand(root: Fold) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return all modules and tensors of a folded tree, in registration order."""
    modules: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    pending: list[tuple[str, Fold]] = [("", root)]
    while pending:
        path, node = pending.pop()
        modules[path] = node.class_name
        prefix = f"{path}." if path else ""
        for name, leaf in node.leaves:
            tensors[prefix + name] = Tensor(prefix + name, leaf.shape, leaf.dtype, leaf.kind, leaf.persistent)
        for segment, child in reversed(node.children):
            names = [segment] if isinstance(segment, str) else map(str, reversed(segment))
            pending += [(prefix + name, child) for name in names]
    return modules, tensors


# --- paths
# ------------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(?:0|[1-9][0-9]{0,8})\Z")
_RANGE = re.compile(r"(?<!\\)\[(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})\]\Z")
_BARE_BRACKET = re.compile(r"(?<!\\)(?:\\\\)*[\[\]]")


def join(path: str, segment: Segment) -> str:
    """Return the path of a child: `model.layers` and `range(80)` make `model.layers[0-79]`.

    Brackets in names are escaped.
    """
    if isinstance(segment, range):
        return f"{path}[{segment.start}-{segment.stop - 1}]"
    name = segment.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return f"{path}.{name}" if path else name


def split_path(key: str) -> tuple[str, Segment]:
    """Return the parent's key and the last step; the opposite of `join`.

    Raises:
        ValueError: for a key that no path can have.
    """
    match = _RANGE.search(key)
    if match is not None:
        run = range(int(match[1]), int(match[2]) + 1)
        if not run:
            raise ValueError(f"the range {match[0]} runs backwards")
        return key[: match.start()], run
    parent, _, last = key.rpartition(".")
    if not last or ("." in key and not parent):
        raise ValueError("a path has no empty parts")
    if _BARE_BRACKET.search(last):
        raise ValueError(
            "expected a range such as [0-79] at the end of a part, of numbers below 1,000,000,000"
        )
    return parent, re.sub(r"\\(.)", r"\1", last)


def names_in(tree: Fold) -> Iterator[tuple[str, Fold]]:
    """Yield the key and the node of every part of a folded tree, in order."""
    pending: list[tuple[str, Fold]] = [("", tree)]
    while pending:
        key, node = pending.pop()
        yield key, node
        pending += [(join(key, segment), child) for segment, child in reversed(node.children)]
