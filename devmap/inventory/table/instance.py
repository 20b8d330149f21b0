"""A class of the built-in table made concrete, with the config and the tensors of a checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

from devmap.errors import InventoryError
from devmap.inventory.conversions.conversion import ConversionRules, NameConversion
from devmap.inventory.model import Tensor
from devmap.inventory.table.expression import evaluate
from devmap.inventory.table.skeleton import legacy_rows, models_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from devmap.inventory.conversions.assembly import Assembled
    from devmap.inventory.table.skeleton import Child, Module, TensorTemplate

__all__ = ["Instance", "Lookup", "instantiate", "rules_of_tree"]

_Names = dict[str, "_Names | None"]
"""Names of tensors as a tree; a tensor is None."""


@dataclass
class Instance:
    """Modules and tensors in registration order, and the tensors that should be there and have no shape."""

    modules: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    ties: tuple[tuple[str, ...], ...] = ()
    whole: tuple[str, ...] = ()
    missing: list[str] = field(default_factory=list)
    doubts: tuple[str, ...] = ()
    """What the table says of itself that it does not settle."""


class Lookup:
    """Which template a tensor's name leads to; each path of modules is looked up once."""

    def __init__(self, root: Module) -> None:
        self._modules: dict[str, tuple[Module, ...]] = {"": (root,)}

    def template(self, name: str) -> TensorTemplate | None:
        """Return the template of a tensor's name, or None where the class has no such tensor."""
        path, _, last = name.rpartition(".")
        for module in self._at(path):
            found = module.template(last)
            if found is not None:
                return found
        return None

    def _at(self, path: str) -> tuple[Module, ...]:
        found = self._modules.get(path)
        if found is None:
            parent, _, segment = path.rpartition(".")
            children = [module.child(segment) for module in self._at(parent)]
            found = self._modules[path] = tuple(
                module for child in children if child is not None for module in child.alternatives
            )
        return found


def rules_of_tree(root: Module) -> ConversionRules:
    """Return how Transformers reads a checkpoint into a class.

    The conversions of the model and of models inside it.

    As `transformers.conversion_mapping.get_model_conversion_mapping` gathers them: a part's rules hold below
    its path, unless the model around it has brought the same.
    """
    found: list[NameConversion] = []
    seen: dict[str, list[str]] = {}
    computed: set[str] = set()
    for path, module in models_in(root):
        if "*" in path:
            continue
        if _is_below(path, seen.get(module.class_name, ())):
            continue
        rows = module.conversions.get(module.class_name)
        by_class = rows is not None
        if rows is None:
            model_type = module.model_type or ""
            if _is_below(path, seen.get(model_type, ())):
                continue
            rows = module.conversions.get(model_type)
        if rows is None:
            continue
        scope = path.removeprefix(root.prefix).removeprefix(".") if path else None
        found += [NameConversion.from_row(row, scope) for row in rows]
        seen.setdefault(module.class_name, []).append(path)
        if not by_class and module.model_type:
            seen.setdefault(module.model_type, []).append(path)
    found += [NameConversion.from_row(row) for row in legacy_rows()]
    ignored = set(root.ignored)
    _computed_names(root, computed, set())
    if any(name == "inv_freq" for name in computed):
        ignored.add(r"rotary_emb\.inv_freq")
    if any(name.endswith("position_ids") for name in computed):
        ignored.add(r"(^|\.)position_ids$")
    return ConversionRules(tuple(found), root.prefix, tuple(sorted(ignored)))


def _is_below(path: str, ancestors: Iterable[str]) -> bool:
    return any(not ancestor or path.startswith(f"{ancestor}.") for ancestor in ancestors)


def _computed_names(module: Module, found: set[str], seen: set[int]) -> None:
    if id(module) in seen:
        return
    seen.add(id(module))
    found.update(tensor.name for tensor in module.tensors if tensor.kind == "buffer")
    for child in module.children.values():
        for each in child.alternatives:
            _computed_names(each, found, seen)


def instantiate(root: Module, held: Mapping[str, Assembled], *, dtype: str) -> Instance:
    """Return what a model of this class is made of.

    `held` are the tensors that the checkpoint makes, `dtype` is the one that the model is built in.
    """
    builder = _InstanceBuilder(held, dtype, Instance(), _tree(held))
    builder.module(root, "", builder.names, required=True)
    found = builder.found
    order = {name: number for number, name in enumerate(builder.tensors)}
    groups = _groups(builder.models, order, builder.shared)
    for group in groups:
        known = next((tensor for name in group if (tensor := builder.tensors[name]) is not None), None)
        if known is not None:
            lacking = [name for name in group if builder.tensors[name] is None]
            builder.tensors |= {name: known._replace(name=name) for name in lacking}
    for name, tensor in builder.tensors.items():
        if tensor is None:
            found.missing.append(name)
        else:
            found.tensors[name] = tensor
    kept = _with_parents(found.tensors)
    found.modules = {path: name for path, name in found.modules.items() if path in kept}
    found.ties = tuple(group for group in groups if builder.tensors[group[0]] is not None)
    found.whole = tuple(sorted(builder.whole))
    found.doubts = tuple(builder.doubts)
    return found


def _with_parents(names: Iterable[str]) -> set[str]:
    kept = {""}
    for name in names:
        path = name.rpartition(".")[0]
        while path not in kept:
            kept.add(path)
            path = path.rpartition(".")[0]
    return kept


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
class _InstanceBuilder:
    """Walks templates and names side by side; a class because its results grow together."""

    held: Mapping[str, Assembled]
    dtype: str
    found: Instance
    names: _Names
    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    """In order; None for one that should be there and is not stored."""
    models: list[tuple[str, Module]] = field(default_factory=list)
    tied: list[tuple[str, str]] = field(default_factory=list)
    """Paths of models, and expressions for names below them that are tied, or tied to."""
    whole: set[str] = field(default_factory=set)
    doubts: dict[str, None] = field(default_factory=dict)
    repeats: list[tuple[re.Pattern[str], int, list[str]]] = field(default_factory=list)
    """Of parts that share weights by turns: their paths, how many are distinct, those met so far."""
    shared: dict[str, str] = field(default_factory=dict)
    """Tensors of such parts, each with the one that it shares."""
    owner: tuple[str, str] | None = None
    """The part that is walked and the one whose weights it shares."""

    def module(self, module: Module, path: str, names: _Names, *, required: bool) -> None:
        """Depth of recursion is that of the table, a dozen."""
        self.found.modules[path] = module.class_name
        self.whole.update(module.whole)
        self.doubts |= dict.fromkeys(f"{doubt} in {module.class_name}" for doubt in module.doubts)
        prefix = f"{path}." if path else ""
        if module.model_type is not None and module.ties:
            self.models.append((path, module))
            if module.figures.get("tie_word_embeddings", False):
                self.tied += [
                    (prefix, name.removeprefix("^")) for pair in module.ties.items() for name in pair
                ]
        self._expect_repeats(module, prefix)
        for template in module.tensors:
            self._tensor(template, module, path, prefix + template.name, required=required)
        if names.get("bias", self) is None and "bias" not in module.by_name:
            assembled = self._stored(f"{prefix}bias")
            assert assembled is not None  # its name was there
            self.tensors[f"{prefix}bias"] = Tensor(f"{prefix}bias", assembled.shape, assembled.dtype)
        for segment, child in module.children.items():
            for name in (
                self._numbers(child, names, module, prefix, required=required)
                if segment == "*"
                else (segment,)
            ):
                below = names.get(name)
                owner = self._owner_of(prefix + name)
                if owner is not None:
                    self._share(child, module, prefix + name, owner)
                    continue
                is_tied = below is None and child.optional and self._is_tied(prefix + name)
                if below is None and not is_tied and not self._is_there(child, module):
                    continue
                chosen = self._chosen(child, module, prefix + name, below or {})
                needed = required and (is_tied or not (child.optional and below is None))
                self.module(chosen, prefix + name, below or {}, required=needed)

    def _expect_repeats(self, module: Module, prefix: str) -> None:
        if not module.figures.get("tie_word_embeddings", False):
            return
        for template, period in module.repeats.items():
            distinct = self._value(period, module)
            if isinstance(distinct, int) and distinct > 0:
                pattern = re.escape(prefix + template).replace(r"\*", r"\d+")
                self.repeats.append((re.compile(pattern), distinct, []))

    def _owner_of(self, path: str) -> str | None:
        """Return the part whose weights one at this path shares; None where it has its own."""
        for pattern, distinct, met in self.repeats:
            if pattern.fullmatch(path):
                met.append(path)
                place = len(met) - 1
                return met[place % distinct] if place >= distinct else None
        return None

    def _share(self, child: Child, module: Module, path: str, owner: str) -> None:
        """Walk a part by the names of the one whose weights it shares, since it is stored once."""
        names: _Names = self.names
        for segment in owner.split("."):
            names = names.get(segment) or {}
        outer, self.owner = self.owner, (path, owner)
        self.module(self._chosen(child, module, path, names), path, names, required=True)
        self.owner = outer

    def _stored(self, name: str) -> Assembled | None:
        """Return what the checkpoint makes for a tensor, or for the one that it shares."""
        if self.owner is None:
            return self.held.get(name)
        path, owner = self.owner
        self.shared[name] = owner + name.removeprefix(path)
        return self.held.get(name) or self.held.get(self.shared[name])

    def _chosen(self, child: Child, module: Module, path: str, names: _Names) -> Module:
        """Return the class that covers most of the names that are there, and wants fewest that are not.

        Where several do so alike the config or the nearest number in the path may say which it is.
        """
        if len(child.alternatives) == 1:
            return child.alternatives[0]
        fits = [_fit(each, names, 3) for each in child.alternatives]
        best = [number for number, fit in enumerate(fits) if fit == max(fits)]
        if len(best) > 1 and child.which:
            best = [
                number
                for number in best
                if number < len(child.which) and self._value(child.which[number], module)
            ] or best
        if len(best) > 1 and child.places:
            nearest = next((segment for segment in reversed(path.split(".")) if segment.isdecimal()), "")
            placed = child.places.get(nearest)
            best = [placed] if placed in best else best
        return child.alternatives[best[0]]

    def _is_tied(self, path: str) -> bool:
        """Return whether a module of which nothing is stored shares what is stored elsewhere."""
        return any(
            path.startswith(prefix)
            and (re.match(name, path[len(prefix) :]) or name.startswith(f"{path[len(prefix) :]}."))
            for prefix, name in self.tied
        )

    def _is_there(self, child: Child, module: Module) -> bool:
        """Return whether a child of which nothing is stored stands there.

        What some configs leave out does not.
        """
        if child.when is not None:
            return bool(self._value(child.when, module))
        if not child.optional or all(each.is_computed for each in child.alternatives):
            return True
        chosen = zip(child.alternatives, child.which, strict=False)
        return any(each.is_computed and bool(self._value(condition, module)) for each, condition in chosen)

    def _numbers(
        self, child: Child, names: _Names, module: Module, prefix: str, *, required: bool
    ) -> Iterator[str]:
        count = self._value(child.count, module) if child.count is not None and required else None
        stored = sorted((name for name in names if name.isdecimal()), key=int)
        if not isinstance(count, int) or count > _MANY or ((child.count or "").isdecimal() and count > 4):
            yield from stored
            return
        # A constant is the number in the table's builds, which need not be this model's: what is not stored
        # has to be tied to be believed.
        is_sure = not stored or not (child.count or "").isdecimal()
        for name in map(str, range(count)):
            if is_sure or name in names or self._is_tied(prefix + name):
                yield name
        if child.count is not None and "layers" not in child.count:
            # Only a figure that counts layers says that more of them are not the model's.
            yield from (name for name in stored if int(name) >= count)

    def _tensor(
        self, template: TensorTemplate, module: Module, path: str, name: str, *, required: bool
    ) -> None:
        if not template.persistent:
            if self._value(template.when, module):
                self._computed(template, module, path, name)
            return
        tensor = self._stored(name)
        if tensor is not None:
            self.tensors[name] = Tensor(name, tensor.shape, tensor.dtype, template.kind)
        elif required and not template.optional:
            self.tensors[name] = None

    def _computed(self, template: TensorTemplate, module: Module, path: str, name: str) -> None:
        def size(below: str, dim: int) -> int | None:
            held = self.held.get(f"{path}.{below}" if path else below)
            return None if held is None or dim >= len(held.shape) else held.shape[dim]

        numbers = [int(segment) for segment in path.split(".") if segment.isdecimal()]
        sizes = [self._value(each, module, size, numbers) for each in template.shape]
        shape = tuple(each for each in sizes if isinstance(each, int) and each >= 0)
        if len(shape) < len(sizes):
            self.doubts[f"the size of '{template.name}' in {module.class_name}"] = None
            return
        dtype = self.dtype if template.dtype == "default" else template.dtype
        self.tensors[name] = Tensor(name, shape, dtype, "buffer", persistent=False)

    @staticmethod
    def _value(
        expression: str,
        module: Module,
        size: Callable[[str, int], int | None] = lambda _name, _dim: None,
        numbers: Sequence[int] = (),
    ) -> object:
        """Return the value of an expression; None where config.json lacks what it takes."""
        try:
            return evaluate(expression, module.figures, size, numbers)
        except InventoryError:
            return None


_MANY = 100_000
"""A config may claim any number of layers; past this one the checkpoint's own are believed."""


def _fit(module: Module, names: _Names, depth: int) -> tuple[int, int]:
    covered, lacking = 0, 0
    for name, below in names.items():
        if below is None:
            covered += module.template(name) is not None
            continue
        child = module.child(name)
        if child is None:
            continue
        covered += 1
        if depth > 1:
            best = max(_fit(each, below, depth - 1) for each in child.alternatives)
            covered, lacking = covered + best[0], lacking + best[1]
    lacking -= sum(
        tensor.persistent and not tensor.optional and tensor.name not in names for tensor in module.tensors
    )
    lacking -= sum(
        segment != "*"
        and not child.optional
        and segment not in names
        and not child.alternatives[0].is_computed
        for segment, child in module.children.items()
    )
    return covered, lacking


# --- ties


def _groups(
    models: list[tuple[str, Module]], order: Mapping[str, int], shared: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """Names that share one tensor, each group and the groups in tensor order."""
    pairs = dict(shared)
    for path, module in models:
        if not module.figures.get("tie_word_embeddings", False):
            continue
        prefix = f"{path}." if path else ""
        own = [name.removeprefix(prefix) for name in order if name.startswith(prefix)]
        pairs |= {prefix + tied: prefix + owner for tied, owner in _expanded(module.ties, own).items()}
    groups: dict[str, set[str]] = {}
    for tied, owner in pairs.items():
        if tied not in order or owner not in order:
            continue
        merged = groups.get(tied, {tied}) | groups.get(owner, {owner})
        for name in merged:
            groups[name] = merged
    unique = {id(group): sorted(group, key=order.__getitem__) for group in groups.values()}
    return tuple(sorted((tuple(group) for group in unique.values()), key=lambda group: order[group[0]]))


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.]+(weight|bias)\Z")


def _expanded(ties: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """Return each tied tensor and the one that it is tied to, as Transformers' expressions say."""
    if all(_PLAIN_NAME.match(name) for name in (*ties, *ties.values())):
        return dict(ties)
    found: dict[str, str] = {}
    for target, source in ties.items():
        targets = sorted(name for name in names if re.search(f"^{target}", name))
        sources = sorted(name for name in names if re.search(f"^{source}", name))
        if targets and sources and len(targets) % len(sources) == 0:
            for name, owner in zip(targets, cycle(sources), strict=False):
                found[name] = found.get(owner, owner)
    return found
