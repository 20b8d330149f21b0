"""A class of the built-in table made concrete.

With the figures of a config and the tensors of a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from devmap.inventory.expression import evaluate
from devmap.inventory.model import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.inventory.assembly import Assembled
    from devmap.inventory.skeleton import Alternative, ModelClass, Module, TensorTemplate

__all__ = ["Instance", "instantiate"]

_Names = dict[str, "_Names | None"]
"""Names of tensors as a tree; a tensor is None."""


@dataclass
class Instance:
    """Modules and tensors in registration order, and the tensors that should be there and have no shape."""

    modules: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ties: tuple[tuple[str, ...], ...] = ()
    missing: list[str] = field(default_factory=list)


def instantiate(
    model_class: ModelClass, figures: Mapping[str, object], held: Mapping[str, Assembled], *, dtype: str
) -> Instance:
    """What a model of this class is made of.

    `figures` are the full config, `held` the tensors that the checkpoint makes, `dtype` the one that the
    model is built in.
    """
    groups = model_class.tied if figures.get("tie_word_embeddings", True) else model_class.untied
    known = dict(held)
    for group in groups:
        holder = next((name for name in group if name in held), None)
        if holder is not None:
            known |= dict.fromkeys(group, held[holder])
    builder = _Builder(figures, known, dtype, Instance())
    builder.module(model_class.root, "", _tree(known), required=True)
    found = builder.found
    found.modules = {path: name for path, name in found.modules.items() if path in builder.kept}
    order = {name: number for number, name in enumerate(found.tensors)}
    present = [
        tuple(sorted((name for name in group if name in order), key=order.__getitem__)) for group in groups
    ]
    found.ties = tuple(
        sorted((group for group in present if len(group) > 1), key=lambda group: order[group[0]])
    )
    return found


def _tree(names: Mapping[str, object]) -> _Names:
    root: _Names = {}
    for name in names:
        *path, last = name.split(".")
        level = root
        for segment in path:
            deeper = level.setdefault(segment, {})
            if deeper is None:
                deeper = level[segment] = {}
            level = deeper
        level.setdefault(last, None)
    return root


@dataclass
class _Builder:
    """Walks templates and names side by side; a class because its results grow together."""

    figures: Mapping[str, object]
    held: Mapping[str, Assembled]
    dtype: str
    found: Instance
    kept: set[str] = field(default_factory=lambda: {""})

    def module(self, module: Module, path: str, names: _Names, *, required: bool) -> None:
        """Depth of recursion is that of the table, a dozen."""
        chosen = _chosen(module, names)
        self.found.modules[path] = chosen.class_name
        for template in chosen.tensors:
            self._tensor(template, path, required=required)
        for segment, child in module.children.items():
            if chosen.children is not None and segment not in chosen.children:
                continue
            for name in self._numbers(child, names, required=required) if segment == "*" else (segment,):
                below = names.get(name)
                needed = required and not (child.optional and below is None)
                self.module(child, f"{path}.{name}" if path else name, below or {}, required=needed)

    def _numbers(self, child: Module, names: _Names, *, required: bool) -> Iterator[str]:
        count = evaluate(child.count, self.figures) if child.count is not None and required else None
        if isinstance(count, int):
            yield from map(str, range(count))
        else:
            yield from sorted((name for name in names if name.isdecimal()), key=int)

    def _tensor(self, template: TensorTemplate, path: str, *, required: bool) -> None:
        name = f"{path}.{template.name}" if path else template.name
        if not template.persistent:
            if evaluate(template.when, self.figures):
                self._computed(template, name)
            return
        tensor = self.held.get(name)
        if tensor is not None:
            self._add(Tensor(name, tensor.shape, tensor.dtype, template.kind))
        elif required and not template.optional:
            self.found.missing.append(name)

    def _computed(self, template: TensorTemplate, name: str) -> None:
        sizes = [evaluate(size, self.figures) for size in template.shape]
        shape = tuple(size for size in sizes if isinstance(size, int))
        if len(shape) == len(sizes):
            dtype = self.dtype if template.dtype == "default" else template.dtype
            self._add(Tensor(name, shape, dtype, "buffer", persistent=False))

    def _add(self, tensor: Tensor) -> None:
        self.found.tensors[tensor.name] = tensor
        path = tensor.module
        while path not in self.kept:
            self.kept.add(path)
            path = path.rpartition(".")[0]


def _chosen(module: Module, names: _Names) -> Alternative:
    """The class whose children and tensors cover most of the names that are there."""
    first = module.alternatives[0]
    if len(module.alternatives) == 1:
        return first

    def covered(alternative: Alternative) -> int:
        own = {tensor.name for tensor in alternative.tensors} | set(alternative.children or ())
        return sum((name in own) or (name.isdecimal() and "*" in own) for name in names)

    return max(module.alternatives, key=covered)
