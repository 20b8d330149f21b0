"""The built-in table of architectures: what each model class is made of, whatever its size.

One JSON file per type of config in `architectures/`, written by `scripts/make_architectures.py` from
Transformers' own code and read when a checkpoint asks for it. A class is a tree of templates in registration
order, in which `*` is a number; shapes and most of what differs between models of one class come from the
headers, so the table holds what they cannot tell: classes, buffers that no checkpoint holds, ties,
conversions of stored names. A part that is built from a nested config is a reference to that config's own
file.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from devmap.inventory.table.figures import completed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from devmap.inventory.model import TensorKind

__all__ = [
    "Child",
    "Family",
    "Module",
    "TensorTemplate",
    "assemble",
    "family_of",
    "known_families",
    "legacy_rows",
]


@dataclass(frozen=True, slots=True)
class TensorTemplate:
    """One tensor of a module, by its last name."""

    name: str
    kind: TensorKind = "parameter"
    persistent: bool = True
    optional: bool = False
    """Whether some configs leave it out."""
    dtype: str = ""
    """Of a buffer that no checkpoint holds; `default` is the dtype the model is built in."""
    shape: tuple[str, ...] = ()
    """Of such a buffer: expressions."""
    when: str = "True"
    """Whether such a buffer is there: an expression."""


@dataclass(frozen=True, slots=True)
class Child:
    """What stands at one segment of a path below a module."""

    alternatives: tuple[Module, ...]
    """One for each class that can stand there; the headers say which."""
    optional: bool = False
    count: str | None = None
    """How many numbered ones there are, an expression; None where the checkpoint alone says."""
    when: str | None = None
    """Whether it is there, where it holds nothing that is stored: an expression."""
    places: Mapping[str, int] | None = None
    """Which alternative stands below which number, the nearest in the path, where names do not tell."""
    which: tuple[str, ...] = ()
    """For each alternative an expression over the config that holds where it stands, where names do not
    tell."""


@dataclass(frozen=True, eq=False)
class Module:
    """A class where it stands in a tree of templates."""

    class_name: str
    tensors: tuple[TensorTemplate, ...]
    children: Mapping[str, Child]
    """By the last segment of the path; `*` for numbered ones."""
    figures: Mapping[str, object]
    """The config that it is built from."""
    whole: tuple[str, ...] = ()
    """Classes that its code wants kept whole."""
    ties: Mapping[str, str] = field(default_factory=dict)
    """Expressions for its tied tensors and for those that they are tied to."""
    repeats: Mapping[str, str] = field(default_factory=dict)
    """Of parts that share weights by turns: how many are distinct, an expression, by the template of their
    paths."""
    model_type: str | None = None
    """The type of its config if it is a model of its own, which may have conversions of its own."""
    conversions: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Rows of conversions by class name and by type of config."""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    """What of it the table does not settle."""

    def child(self, segment: str) -> Child | None:
        """Return the child that a segment of a tensor's name leads to."""
        found = self.children.get(segment)
        if found is None and segment.isdecimal():
            return self.children.get("*")
        return found

    @functools.cached_property
    def by_name(self) -> dict[str, TensorTemplate]:
        """Its tensors by their last names."""
        return {tensor.name: tensor for tensor in self.tensors}

    def template(self, name: str) -> TensorTemplate | None:
        """Return one of its tensors; a bias is allowed to every module of torch's own that can have one."""
        found = self.by_name.get(name)
        if found is None and name == "bias" and self.class_name in _WITH_BIAS and "weight" in self.by_name:
            return _BIAS
        return found

    @functools.cached_property
    def is_computed(self) -> bool:
        """Whether nothing at or below it is stored."""
        return not any(tensor.persistent for tensor in self.tensors) and all(
            module.is_computed for child in self.children.values() for module in child.alternatives
        )


_WITH_BIAS = frozenset(
    {"Linear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "LayerNorm", "Conv1D"}
)
_BIAS = TensorTemplate("bias", optional=True)


@dataclass(frozen=True)
class Family:
    """The file of one type of config."""

    model_type: str
    table: Mapping[str, Any]

    @property
    def classes(self) -> Mapping[str, int]:
        """The number of each class's node."""
        found: Mapping[str, int] = self.table.get("classes", {})
        return found

    @property
    def autos(self) -> Mapping[str, str]:
        """The class that each of Transformers' mappings builds."""
        found: Mapping[str, str] = self.table.get("autos", {})
        return found

    @property
    def base_class(self) -> str | None:
        """The class that is meant where a config names none."""
        return self.autos.get("base") or next(iter(self.classes), None)

    def class_of(self, what: str) -> str | None:
        """Return the class that a mapping builds, or the class of this name.

        The base class where there is neither.
        """
        return self.autos.get(what) or (what if what in self.classes else self.base_class)

    def completed(self, config: Mapping[str, object]) -> dict[str, object]:
        """Return a config with what its file leaves out."""
        return completed(config, self.table, _section_of)


def _section_of(model_type: str) -> Mapping[str, Any] | None:
    family = family_of(model_type)
    return None if family is None else family.table


@functools.cache
def known_families() -> tuple[str, ...]:
    """Return the types of config that the table has."""
    return tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in _folder().iterdir()
            if entry.name.endswith(".json") and not entry.name.startswith("_")
        )
    )


def _folder() -> resources.abc.Traversable:
    return resources.files("devmap.inventory") / "architectures"


@functools.cache
def family_of(model_type: str) -> Family | None:
    """Return the table's entry for a type of config, None where it has none."""
    if not model_type.replace("_", "").replace("-", "").replace(".", "").isalnum():
        return None
    entry = _folder() / f"{model_type}.json"
    if not entry.is_file():
        return None
    return Family(model_type, json.loads(entry.read_text(encoding="utf-8")))


@functools.cache
def legacy_rows() -> list[dict[str, Any]]:
    """Conversions that hold for every class."""
    found: list[dict[str, Any]] = json.loads((_folder() / "_legacy.json").read_text(encoding="utf-8"))
    return found


def assemble(family: Family, class_name: str, config: Mapping[str, object]) -> Module | None:
    """Return the tree of templates of one class for a completed config.

    With the parts that other files describe.

    None where the table lacks the class, or a part of it.
    """
    number = family.classes.get(class_name)
    if number is None:
        return None
    try:
        return _Assembly(family, config).node(number, config)
    except _UnknownPartError:
        return None


class _UnknownPartError(Exception):
    """A nested config that the table has no class for."""


class _Assembly:
    """Makes each node of a family once for each config that it stands below."""

    def __init__(self, family: Family, config: Mapping[str, object]) -> None:
        self._family = family
        self._config = config
        self._known: dict[tuple[int, int], Module] = {}
        facts = family.table.get("facts", {})
        self._facts: dict[str, dict[str, Any]] = facts
        self._conversions = family.table.get("conversions", {})

    def node(self, number: int, figures: Mapping[str, object]) -> Module:
        """Return the node of a number; the depth of recursion is that of the model, a dozen."""
        key = (number, id(figures))
        found = self._known.get(key)
        if found is None:
            row = self._family.table["nodes"][number]
            found = self._known[key] = (
                self._reference(row) if isinstance(row, dict) else self._plain(row, figures)
            )
        return found

    def _plain(self, row: list[Any], figures: Mapping[str, object]) -> Module:
        class_name, tokens, children, computed, extras = [*row, *_EMPTY[len(row) :]]
        if "scope" in extras:
            figures = _inside(self._config, extras["scope"])
        facts = self._facts.get(class_name, {})
        model_type = extras.get("model")
        whens, places = extras.get("when", {}), extras.get("places", {})
        return Module(
            class_name,
            tuple(_tensor(token, computed) for token in tokens.split()),
            {
                segment.removesuffix("?"): Child(
                    _pooled(
                        [
                            self.node(n, figures)
                            for n in (numbers if isinstance(numbers, list) else (numbers,))
                        ]
                    ),
                    segment.endswith("?"),
                    extras.get("count") if segment.startswith("*") else None,
                    whens.get(segment.removesuffix("?")),
                    places.get(segment.removesuffix("?")),
                    tuple(extras.get("which", {}).get(segment.removesuffix("?"), ())),
                )
                for segment, numbers in children.items()
            },
            figures,
            tuple(facts.get("whole", ())),
            facts.get("ties", {}),
            facts.get("repeats", {}),
            model_type,
            self._conversions if model_type is not None else {},
            facts.get("prefix", ""),
            tuple(facts.get("ignored", ())),
            tuple(extras.get("doubts", ())),
        )

    def _reference(self, row: dict[str, Any]) -> Module:
        if "scope" not in row:
            found = self.node(self._family.classes[row["of"]], self._config)
        else:
            figures = _inside(self._config, row["scope"])
            family = family_of(str(figures.get("model_type") or ""))
            name = None if family is None else family.class_of(row["of"])
            if family is None or name is None:
                raise _UnknownPartError
            found = _Assembly(family, figures).node(family.classes[name], figures)
        for path in row.get("without", ()):
            found = _without(found, path.split("."))
        return found


_EMPTY: list[Any] = ["", "", {}, [], {}]


def _inside(config: Mapping[str, object], scope: str) -> Mapping[str, object]:
    for key in scope.split(".") if scope else ():
        inner = config.get(key)
        config = inner if isinstance(inner, dict) else {}
    return config


def _pooled(alternatives: list[Module]) -> tuple[Module, ...]:
    """Return the alternatives, each with the classes that the others have at a child of the same name.

    The table's builds need not have shown each kind of layer with each kind of feed-forward.
    """
    if len(alternatives) == 1:
        return (alternatives[0],)
    found: dict[str, dict[str, Module]] = {}
    for module in alternatives:
        for segment, child in module.children.items():
            found.setdefault(segment, {}).update(
                {each.class_name: each for each in reversed(child.alternatives)}
            )
    return tuple(
        replace(
            module,
            children={
                segment: child
                if len(found[segment]) == len(child.alternatives)
                else replace(
                    child,
                    alternatives=(
                        *child.alternatives,
                        *(each for name, each in found[segment].items() if name not in _classes(child)),
                    ),
                )
                for segment, child in module.children.items()
            },
        )
        for module in alternatives
    )


def _classes(child: Child) -> set[str]:
    return {each.class_name for each in child.alternatives}


def _without(module: Module, path: list[str]) -> Module:
    """Return the module without a tensor or a part at a path below it.

    The model around it is built without that.
    """
    name, *rest = path
    if not rest and name in module.by_name:
        return replace(module, tensors=tuple(tensor for tensor in module.tensors if tensor.name != name))
    child = module.children.get(name)
    if child is None:
        return module
    children = dict(module.children)
    if rest:
        children[name] = replace(
            child, alternatives=tuple(_without(each, rest) for each in child.alternatives)
        )
    else:
        del children[name]
    return replace(module, children=children)


def _tensor(token: str, computed: list[list[Any]]) -> TensorTemplate:
    """`weight`, `bias?` for one that may be absent, `%mean` for a stored buffer, `&0` for a computed one."""
    if token.startswith("&"):
        name, dtype, dims, *when = computed[int(token[1:])]
        return TensorTemplate(name, "buffer", False, False, dtype, tuple(dims), when[0] if when else "True")
    name = token.strip("%?")
    return TensorTemplate(
        name, "buffer" if token.startswith("%") else "parameter", optional=token.endswith("?")
    )


def models_in(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """Yield the models of their own in a tree, with their paths, in the order of `named_modules()`."""
    if module.model_type is not None:
        yield path, module
    for segment, child in module.children.items():
        for each in child.alternatives:
            yield from models_in(each, f"{path}.{segment}" if path else segment)
