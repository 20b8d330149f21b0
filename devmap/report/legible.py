"""Names and words of a plan, a model or a difference, as a terminal or a page may show them.

A checkpoint from a stranger names its tensors, and a repository its files, as they like: with ends of lines,
with the codes that a terminal or the log of a CI job obeys, with marks that turn the direction of writing.
Reports are made from copies in which all of these are written out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from devmap.config.values.words import escaped
from devmap.inventory.model import Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["legible"]

Shown = TypeVar("Shown")


def legible(value: Shown) -> Shown:
    r"""Return the value with every text in it as `escaped` writes it.

    That is the value itself where there is nothing to write out. Goes through tuples, lists, mappings
    (keys too) and dataclasses.

    >>> legible({"a\nb": ("c", 1)})
    {'a\\nb': ('c', 1)}
    """
    return cast("Shown", _written_out(value))


def _is_plain(inventory: Inventory) -> bool:
    names = (*inventory.modules, *inventory.modules.values(), *inventory.tensors)
    return "".join(names).isprintable() and _written_out(inventory.architecture) is inventory.architecture


def _written_out(value: Any) -> Any:
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, Mapping):
        return _same_or(value, [part for item in value.items() for part in item], _as_mapping)
    if isinstance(value, tuple | list):
        return _same_or(value, value, type(value)._make if hasattr(value, "_make") else type(value))
    # Nearly every model has plain names, and 10^5 of them: one look at all of them joined spares the walk.
    if is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Inventory) and _is_plain(value):
            return value
        names = [field.name for field in fields(value) if field.init]
        kept = [getattr(value, name) for name in names]
        return _same_or(value, kept, lambda parts: replace(value, **dict(zip(names, parts, strict=True))))
    return value


def _same_or(value: Any, parts: Sequence[Any], made_of: Callable[[Sequence[Any]], Any]) -> Any:
    """Return the value itself where none of its parts changes, else what is made of the changed ones."""
    written = [_written_out(part) for part in parts]
    same = all(new is old for new, old in zip(written, parts, strict=True))
    return value if same else made_of(written)


def _as_mapping(parts: Sequence[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))
