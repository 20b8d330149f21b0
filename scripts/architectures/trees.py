"""A model as a tree of templates, and several builds of one class merged into one tree.

Numbered children are one template, `*`. Where builds or numbers differ in class, the classes stand side by
side; what some of them lack is optional.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from architectures.builds import Build

__all__ = ["Leaf", "Node", "Seen", "merge", "read_tree", "walk"]


@dataclass
class Seen:
    """One computed buffer in one build."""

    build: Build
    shape: tuple[int, ...]
    dtype: str
    sizes: dict[str, tuple[int, ...]]
    """Shapes of the parameters at and below the buffer's module, by their names there."""
    numbers: tuple[int, ...] = ()
    """The numbers in its path: of a stage and of a block inside it, for example."""


@dataclass
class Leaf:
    """A tensor of a module."""

    kind: str
    persistent: bool
    optional: bool = False
    seen: list[Seen] = field(default_factory=list)


@dataclass
class Node:
    """A module, or all modules of one class that stand at one template."""

    class_name: str
    kind: type
    scope: str
    """The path of its config inside the root's."""
    leaves: dict[str, Leaf]
    children: dict[str, list[Node]]
    """One node per class that stands there."""
    counts: dict[str, list[tuple[Build, int]]]
    """How many numbered children there are, by build."""
    places: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    """For each child the classes that stand there, by the number in the path that is nearest to it."""
    optional: frozenset[str] = frozenset()
    builds: list[Build] = field(default_factory=list)
    """Those that have it."""
    config_type: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Of a model of its own: what its class says of ties, of classes that stay whole, of names."""
    periods: dict[str, list[tuple[Build, int]]] = field(default_factory=dict)
    """Of a model whose parts share weights by turns: how many are distinct, by template and build."""


def read_tree(build: Build) -> Node:
    """The folded tree of a build."""
    scopes: dict[int, str] = {}
    _scopes(build.config, "", scopes)
    node = _read(build.model, build, scopes, "")
    assert node is not None
    return node


def _scopes(config: Any, path: str, found: dict[int, str]) -> None:
    found.setdefault(id(config), path)
    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _scopes(value, f"{path}.{key}" if path else key, found)


def _read(
    module: nn.Module, build: Build, scopes: dict[int, str], scope: str, numbers: tuple[int, ...] = ()
) -> Node | None:
    config = getattr(module, "config", None)
    scope = scopes.get(id(config), scope)
    own = vars(module)
    leaves = {
        name: Leaf("parameter", True) for name, value in own["_parameters"].items() if value is not None
    }
    children: dict[str, list[Node]] = {}
    counts: dict[str, list[tuple[Build, int]]] = {}
    places: dict[str, dict[int, set[str]]] = {}
    named = {name: child for name, child in own["_modules"].items() if child is not None}
    below = {
        name: node
        for name, child in named.items()
        if (
            node := _read(child, build, scopes, scope, (*numbers, int(name)) if name.isdecimal() else numbers)
        )
        is not None
    }
    numbered = bool(below) and all(name.isdecimal() for name in below)
    classes = {node.class_name for node in below.values()}
    if numbered and (len(classes) == 1 or isinstance(module, nn.ModuleList)):
        merged: list[Node] = []
        for node in below.values():
            merged = _merged_nodes(merged, [node])
        children["*"] = merged
        if list(below) == [str(place) for place in range(len(below))]:
            counts["*"] = [(build, len(below))]
        places["*"] = {int(name): {node.class_name} for name, node in below.items()}
    else:
        children = {name: [node] for name, node in below.items()}
        if numbers:
            places = {name: {numbers[-1]: {node.class_name}} for name, node in below.items()}
    for name, value in own["_buffers"].items():
        if value is None:
            continue
        persistent = name not in own["_non_persistent_buffers_set"]
        leaf = Leaf("buffer", persistent)
        if not persistent:
            dtype = str(value.dtype).removeprefix("torch.")
            sizes = {
                key: tuple(parameter.shape)
                for key, parameter in module.named_parameters()
                if key.count(".") <= 2
            }
            leaf.seen.append(Seen(build, tuple(value.shape), dtype, sizes, numbers))
        leaves[name] = leaf
    if not leaves and not children:
        return None
    model_type = str(getattr(config, "model_type", "") or "") if isinstance(config, PreTrainedConfig) else ""
    return Node(
        type(module).__name__,
        type(module),
        scope,
        leaves,
        children,
        counts,
        places,
        builds=[build],
        config_type=model_type,
        facts=_facts(module),
        periods={template: [(build, period)] for template, period in _periods(module).items()},
    )


def _periods(module: nn.Module) -> dict[str, int]:
    """Return how many parts are distinct of those that share weights by turns, by their paths' template.

    Read off the ties that a model works out when it is built; empty where its class alone names them.
    """
    own = vars(module).get("_tied_weights_keys") if isinstance(module, PreTrainedModel) else None
    ties = list((own or {}).items())
    sources: dict[str, list[str]] = {}
    for source in dict.fromkeys(source for _, source in ties):
        sources.setdefault(_NUMBER.sub("*", source), []).append(source)
    found: dict[str, int] = {}
    for template, owners in sources.items():
        pattern = re.compile(re.escape(template).replace(r"\*", r"\d+"))
        paths = [path for path, _ in module.named_modules(remove_duplicate=False) if pattern.fullmatch(path)]
        if (
            "*" in template
            and paths[: len(owners)] == owners
            and all(
                any(
                    re.match(f"{target}$", path) and source == owners[number % len(owners)]
                    for target, source in ties
                )
                for number, path in enumerate(paths[len(owners) :])
            )
        ):
            found[template] = len(owners)
    return found


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def _facts(module: nn.Module) -> dict[str, Any]:
    whole = sorted(getattr(type(module), "_no_split_modules", None) or ())
    found: dict[str, Any] = {"whole": whole} if whole else {}
    if isinstance(module, PreTrainedModel):
        found["prefix"] = str(module.base_model_prefix or "")
        ties = getattr(module, "_tied_weights_keys", None)
        if ties:
            found["ties"] = dict(ties)
        ignored = sorted(getattr(module, "_keys_to_ignore_on_load_unexpected", None) or ())
        if ignored:
            found["ignored"] = ignored
    return found


def merge(first: Node, second: Node) -> Node:
    """What is in either; what is not in both is optional."""
    leaves: dict[str, Leaf] = {}
    for name in _merged_order(list(first.leaves), list(second.leaves)):
        sides = [side.leaves[name] for side in (first, second) if name in side.leaves]
        leaves[name] = dataclasses.replace(
            sides[0],
            optional=len(sides) == 1 or any(side.optional for side in sides),
            persistent=any(side.persistent for side in sides),
            seen=[seen for side in sides for seen in side.seen],
        )
    children: dict[str, list[Node]] = {}
    for name in _merged_order(list(first.children), list(second.children)):
        children[name] = _merged_nodes(first.children.get(name, []), second.children.get(name, []))
    counts = {
        name: [*first.counts.get(name, []), *second.counts.get(name, [])]
        for name in {**first.counts, **second.counts}
    }
    optional = first.optional | second.optional | (set(first.children) ^ set(second.children))
    return Node(
        first.class_name,
        first.kind,
        first.scope,
        leaves,
        children,
        counts,
        {
            segment: {
                place: first.places.get(segment, {}).get(place, set())
                | second.places.get(segment, {}).get(place, set())
                for place in {**first.places.get(segment, {}), **second.places.get(segment, {})}
            }
            for segment in {**first.places, **second.places}
        },
        frozenset(optional),
        [*first.builds, *(build for build in second.builds if build not in first.builds)],
        first.config_type,
        first.facts,
        {
            template: [*first.periods.get(template, []), *second.periods.get(template, [])]
            for template in {**first.periods, **second.periods}
        },
    )


def _merged_nodes(first: list[Node], second: list[Node]) -> list[Node]:
    """One node per class."""
    found = list(first)
    for node in second:
        same = next((n for n, known in enumerate(found) if known.class_name == node.class_name), None)
        if same is None:
            found.append(node)
        else:
            found[same] = merge(found[same], node)
    return found


def _merged_order(first: list[str], second: list[str]) -> list[str]:
    """Both orders kept: what only the second has stands after what it follows there."""
    found = list(first)
    for place, name in enumerate(second):
        if name not in found:
            before = second[place - 1] if place else None
            found.insert(found.index(before) + 1 if before is not None else 0, name)
    return found


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every node with the template of its path."""
    yield path, node
    for segment, below in node.children.items():
        for child in below:
            yield from walk(child, f"{path}.{segment}" if path else segment)


def is_pretrained(node: Node) -> bool:
    """Whether it is a model of its own."""
    return issubclass(node.kind, PreTrainedModel)


def look(node: Node, depth: int = 3) -> frozenset[str]:
    """The names of what is stored at and below a node, by which headers tell its class from others."""
    found = {name for name, leaf in node.leaves.items() if leaf.persistent}
    if depth:
        for segment, below in node.children.items():
            for child in below:
                found.update(f"{segment}.{name}" for name in look(child, depth - 1))
    return frozenset(found)
