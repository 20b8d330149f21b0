"""An inventory as a tree with sizes; runs of equal numbered children in one line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devmap.config.values.size import format_bytes
from devmap.report.legible import legible
from devmap.report.plan import shortened
from devmap.report.wrapping import wrap_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.inventory.model import Inventory

__all__ = ["render_inventory"]


_NARROWEST_CLASS = 20
"""Columns that a class or a tensor's shape may always take."""


@dataclass(frozen=True, slots=True)
class _InventoryRow:
    indent: int
    label: str
    class_name: str
    nbytes: int


def render_inventory(inventory: Inventory, *, depth: int = 3, width: int = 100, color: bool = False) -> str:
    """Return the tree of a model down to `depth` levels: name, class, bytes.

    Then totals, ties and what the reader could not know.
    """
    inventory = legible(inventory)
    sizes = _subtree_bytes(inventory)
    rows = list(_rows(inventory, sizes, "", depth=depth, indent=0))
    name_width = min(max(2 * row.indent + len(row.label) for row in rows), width - 40)
    dim, plain = ("\x1b[2m", "\x1b[0m") if color else ("", "")
    lines = [
        f"{'  ' * row.indent + row.label:<{name_width}}  {format_bytes(row.nbytes):>9}  "
        f"{dim}{shortened(row.class_name, max(_NARROWEST_CLASS, width - name_width - 13))}{plain}".rstrip()
        for row in rows
    ]
    kinds = Counter(tensor.kind for tensor in inventory.tensors.values())
    dtypes = Counter(tensor.dtype for tensor in inventory.tensors.values())
    lines.append("")
    quantization = inventory.architecture.figures.get("quantization") if inventory.architecture else None
    if quantization:
        lines.append(f"quantised: {quantization}")
    parts = f", {kinds['part']:,} parts of quantised weights" if kinds["part"] else ""
    lines += wrap_words(
        f"{len(inventory.tensors):,} tensors ({kinds['parameter']:,} parameters, {kinds['buffer']:,} "
        f"buffers{parts}), "
        f"{format_bytes(inventory.nbytes)}; "
        f"{', '.join(f'{dtype} x {count:,}' for dtype, count in dtypes.most_common())}",
        width,
        hanging=2,
    )
    if inventory.no_split_module_classes:
        lines.append(f"never split: {', '.join(inventory.no_split_module_classes)}")
    tail = [f"tied: {' = '.join(group)}" for group in inventory.ties]
    tail += [f"note: {note}" for note in inventory.notes]
    for sentence in tail:
        lines += wrap_words(sentence, width, hanging=2)
    return "\n".join(lines) + "\n"


def _subtree_bytes(inventory: Inventory) -> dict[str, int]:
    """Return the bytes below each module, a tied tensor where its group's first name stands.

    One pass, from the leaves up.
    """
    owner = inventory.owner
    sizes = dict.fromkeys(inventory.modules, 0)
    for name, tensor in inventory.tensors.items():
        if owner.get(name, name) == name:
            sizes[tensor.module] += tensor.nbytes
    for path in reversed(list(inventory.modules)):
        if path:
            sizes[path.rpartition(".")[0]] += sizes[path]
    return sizes


def _rows(
    inventory: Inventory, sizes: dict[str, int], path: str, *, depth: int, indent: int
) -> Iterator[_InventoryRow]:
    label = path.rpartition(".")[2] if path else "(model)"
    yield _InventoryRow(indent, label, inventory.modules[path], sizes[path])
    yield from _rows_below(inventory, sizes, path, depth=depth, indent=indent + 1)


def _rows_below(
    inventory: Inventory, sizes: dict[str, int], path: str, *, depth: int, indent: int
) -> Iterator[_InventoryRow]:
    if indent > depth:
        return
    owner = inventory.owner
    for tensor in inventory.own_tensors[path]:
        nbytes = tensor.nbytes if owner.get(tensor.name, tensor.name) == tensor.name else 0
        shape = ", ".join(map(str, tensor.shape))
        tied = "" if owner.get(tensor.name, tensor.name) == tensor.name else f", tied to {owner[tensor.name]}"
        yield _InventoryRow(indent, tensor.name.rpartition(".")[2], f"{tensor.dtype}[{shape}]{tied}", nbytes)
    for run in _runs(inventory, sizes, inventory.children[path]):
        first, last = run[0], run[-1]
        if first == last:
            yield from _rows(inventory, sizes, first, depth=depth, indent=indent)
            continue
        label = f"{first.rpartition('.')[2]} to {last.rpartition('.')[2]}"
        yield _InventoryRow(
            indent,
            label,
            f"{len(run)} x {inventory.modules[first]}, {format_bytes(sizes[first])} each",
            sum(sizes[one] for one in run),
        )
        yield from _rows_below(inventory, sizes, first, depth=depth, indent=indent + 1)


def _runs(
    inventory: Inventory, sizes: dict[str, int], children: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """Neighbouring numbered children of one class and size together, every other child alone."""
    run: list[str] = []
    for child in children:
        fits = (
            run
            and child.rpartition(".")[2].isdecimal()
            and inventory.modules[child] == inventory.modules[run[0]]
            and sizes[child] == sizes[run[0]]
        )
        if run and not fits:
            yield tuple(run)
            run = []
        run.append(child)
        if not child.rpartition(".")[2].isdecimal():
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)
