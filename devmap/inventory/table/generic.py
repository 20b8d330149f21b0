"""Inventories of models that the built-in table does not know, from the names of their tensors alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.inventory.model import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from devmap.inventory.stored.header import StoredTensor

__all__ = ["guess_modules", "in_module_order", "plain_tensors"]


def plain_tensors(held: Mapping[str, StoredTensor]) -> dict[str, Tensor]:
    """Stored tensors as parameters of their own names."""
    return {name: Tensor(name, held[name].shape, held[name].dtype) for name in in_module_order(held)}


def in_module_order(names: Iterable[str]) -> list[str]:
    """Names depth first, a module's own tensors before its children.

    Siblings as first met but numbered ones by number.
    """
    root: dict[str, object] = {}
    for name in names:
        *path, last = name.split(".")
        level = root
        for segment in path:
            deeper = level.setdefault(f"{segment}.", {})
            assert isinstance(deeper, dict)
            level = deeper
        level[last] = name
    found: list[str] = []
    pending: list[object] = [root]
    while pending:
        node = pending.pop()
        if not isinstance(node, dict):
            found.append(str(node))
            continue
        leaves = [child for child in node.values() if not isinstance(child, dict)]
        deeper_ones = [(key, child) for key, child in node.items() if isinstance(child, dict)]
        numbered = sorted(
            (item for item in deeper_ones if item[0][:-1].isdecimal()), key=lambda item: int(item[0][:-1])
        )
        order = iter(numbered)
        children = [next(order)[1] if key[:-1].isdecimal() else child for key, child in deeper_ones]
        pending += [*reversed(children), *reversed(leaves)]
    return found


def guess_modules(tensors: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the modules that the names imply, with class names where they repeat.

    And those that should stay whole.

    The members of each outermost numbered level that has more than one (`h.0`, `h.1`, ...) get a class of
    their own, `Block` with the level's path: `Block_transformer_h`. Every other class is unknown, and empty.
    """
    modules: dict[str, str] = {"": ""}
    for name in tensors:
        parts = name.split(".")[:-1]
        for length in range(1, len(parts) + 1):
            modules.setdefault(".".join(parts[:length]), "")
    members: dict[str, list[str]] = {}
    for path in modules:
        parent, _, last = path.rpartition(".")
        if last.isdecimal():
            members.setdefault(parent, []).append(path)
    whole: list[str] = []
    inside: set[str] = set()
    for parent, paths in sorted(members.items(), key=lambda item: item[0].count(".")):
        ancestors = {parent[:place] for place, character in enumerate(parent) if character == "."} | {parent}
        if len(paths) < 2 or ancestors & inside:
            continue
        class_name = f"Block_{parent.replace('.', '_')}" if parent else "Block"
        whole.append(class_name)
        inside.update(paths)
        modules |= dict.fromkeys(paths, class_name)
    return modules, tuple(sorted(whole))
