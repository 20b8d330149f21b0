"""The built-in table of architectures: what each model class is made of, whatever its size.

One JSON file per model type in `architectures/`, written by `scripts/make_architectures.py` from
transformers' own code. A class's modules stand in registration order under templates of their paths: a
segment `*` is a number. What depends on a config is an expression over its figures
(`devmap.inventory.expression`).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from devmap.inventory.conversion import Conversion, Rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from devmap.inventory.model import TensorKind

__all__ = ["Family", "ModelClass", "Module", "TensorTemplate", "family_of", "known_families"]


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


@dataclass(slots=True)
class Alternative:
    """One class that can stand at a path."""

    class_name: str
    tensors: tuple[TensorTemplate, ...]
    children: frozenset[str] | None
    """The children that it has; None where it is the only class and has them all."""


@dataclass(slots=True)
class Module:
    """All that can stand at one path template."""

    alternatives: list[Alternative] = field(default_factory=list)
    children: dict[str, Module] = field(default_factory=dict)
    """By the last segment of the path; `*` for numbered ones."""
    optional: bool = False
    count: str | None = None
    """How many numbered ones there are, an expression; None where the checkpoint alone says."""

    def child(self, segment: str) -> Module | None:
        """The child that a segment of a tensor's name leads to."""
        found = self.children.get(segment)
        if found is None and segment.isdecimal():
            return self.children.get("*")
        return found


@dataclass(frozen=True)
class ModelClass:
    """One class of a family: `LlamaForCausalLM`."""

    name: str
    root: Module
    rules: Rules
    no_split: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    """Groups of tensors that are one where `tie_word_embeddings` holds."""
    untied: tuple[tuple[str, ...], ...]
    """Groups that are one even where it does not."""

    def template(self, name: str) -> TensorTemplate | None:
        """The template of a tensor's name, or None where the class has no such tensor."""
        *path, last = name.split(".")
        module: Module | None = self.root
        for segment in path:
            module = module.child(segment) if module is not None else None
        if module is None:
            return None
        return next(
            (
                tensor
                for alternative in module.alternatives
                for tensor in alternative.tensors
                if tensor.name == last
            ),
            None,
        )


@dataclass(frozen=True)
class Family:
    """All classes of one `model_type`."""

    model_type: str
    base_class: str
    aliases: Mapping[str, str]
    defaults: Mapping[str, object]
    derived: Mapping[str, str]
    classes: Mapping[str, ModelClass]


def known_families() -> tuple[str, ...]:
    """The model types that the table has."""
    return tuple(
        sorted(
            entry.name.removesuffix(".json") for entry in _folder().iterdir() if entry.name.endswith(".json")
        )
    )


def _folder() -> resources.abc.Traversable:
    return resources.files("devmap.inventory") / "architectures"


@functools.cache
def family_of(model_type: str) -> Family | None:
    """The table's entry for a model type, None where it has none."""
    if not model_type.replace("_", "").replace("-", "").isalnum():
        return None
    entry = _folder() / f"{model_type}.json"
    if not entry.is_file():
        return None
    table = json.loads(entry.read_text(encoding="utf-8"))
    classes = {
        name: _model_class(name, entry, _conversions(entry.get("conversions", table["conversions"])))
        for name, entry in table["classes"].items()
    }
    return Family(
        model_type, table["base_class"], table["aliases"], table["defaults"], table["derived"], classes
    )


def _conversions(rules: list[dict[str, Any]]) -> tuple[Conversion, ...]:
    return tuple(
        Conversion(
            tuple(map(str, rule["sources"])),
            tuple(map(str, rule["targets"])),
            tuple((name, tuple(dims)) for name, dims in rule.get("operations", ())),
            rule.get("scope"),
        )
        for rule in rules
    )


def _model_class(name: str, entry: dict[str, object], conversions: tuple[Conversion, ...]) -> ModelClass:
    root = Module()
    for row in _rows(entry["modules"]):
        module = root
        for segment in str(row["path"]).split(".") if row["path"] else ():
            module = module.children.setdefault(segment, Module())
        module.optional = bool(row.get("optional", False))
        module.count = None if row.get("count") is None else str(row["count"])
        children = row.get("children")
        tensors = tuple(_tensor(tensor) for tensor in _list(row.get("tensors")))
        module.alternatives.append(
            Alternative(
                str(row["class"]), tensors, None if children is None else frozenset(map(str, _list(children)))
            )
        )
    return ModelClass(
        name,
        root,
        Rules(conversions, str(entry["base_model_prefix"]), tuple(map(str, _list(entry["ignored"])))),
        tuple(map(str, _list(entry["no_split"]))),
        _groups(entry["tied"]),
        _groups(entry["untied"]),
    )


def _tensor(entry: object) -> TensorTemplate:
    """`weight`, `bias?` for one that may be absent, or an object for a buffer."""
    if isinstance(entry, str):
        return TensorTemplate(entry.removesuffix("?"), optional=entry.endswith("?"))
    assert isinstance(entry, dict)
    return TensorTemplate(**{**entry, "shape": tuple(entry.get("shape", ()))})


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _rows(value: object) -> list[dict[str, object]]:
    return [row for row in _list(value) if isinstance(row, dict)]


def _groups(value: object) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(str, _list(group))) for group in _list(value))
