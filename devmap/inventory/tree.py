"""The module tree that the names of tensors imply."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["with_ancestors"]


def with_ancestors(classes: Mapping[str, str], tensors: Iterable[str]) -> dict[str, str]:
    """Return the modules, in their own order, that hold a tensor or have a descendant that does.

    The root is always one.
    """
    kept = {""}
    for name in tensors:
        path = name.rpartition(".")[0]
        while path not in kept:
            kept.add(path)
            path = path.rpartition(".")[0]
    if len(kept) == len(classes) and kept == classes.keys():
        return dict(classes)
    return {path: class_name for path, class_name in classes.items() if path in kept}
