"""One type of config and all classes that Transformers builds from it, as a table."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import transformers
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from architectures.builds import auto_classes, builds_of, class_names, config_type, default_build
from architectures.configs import config_section
from architectures.expressions import condition_of, dimension_of, figures_of, scalar_of
from architectures.trees import Leaf, Node, is_pretrained, look, merge, read_tree, walk
from devmap.inventory.live.live_match import conversion_row

if TYPE_CHECKING:
    from architectures.builds import Build

__all__ = ["family_table", "legacy_conversions", "unsettled"]

unsettled: list[str] = []
"""What no expression was found for, in sentences."""


@dataclass
class Tree:
    """One class: its merged tree, and the builds behind it."""

    root: Node
    builds: list[Build]


_open: set[tuple[str, str]] = set()
_failed: dict[tuple[str, str], str] = {}


@cache
def class_tree(model_type: str, class_name: str) -> Tree | None:
    """The tree of a class; None where it cannot be built."""
    _open.add((model_type, class_name))
    try:
        return _class_tree(model_type, class_name)
    except Exception as error:  # noqa: BLE001 - a class that cannot be built is left out, with its reason
        _failed[model_type, class_name] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        return None
    finally:
        _open.discard((model_type, class_name))


def _class_tree(model_type: str, class_name: str) -> Tree:
    config_class = config_type(model_type, class_name)
    is_head = class_name != class_names(model_type)[0]
    arguments, first = default_build(class_name, config_class, is_shallow=is_head)
    root = read_tree(first)
    taken = [first]
    skipped, has_own = _parts_of_others(root, model_type, class_name)
    # A head around a class with a table of its own shows nothing new at other sizes, unless it has lists or
    # computed buffers of its own.
    is_shallow = not root.periods  # which parts share weights shows with all layers alone
    others = builds_of(class_name, config_class, arguments, skipped=skipped, is_shallow=is_shallow)
    for each in () if has_own else others:
        root = merge(root, read_tree(each))
        taken.append(each)
        each.model = None  # type: ignore[assignment]
    first.model = None  # type: ignore[assignment]
    return Tree(root, taken)


def _parts_of_others(
    root: Node, model_type: str, class_name: str
) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """Nested configs that only parts with a table of their own use, and whether one is of this family."""
    covered: dict[str, None] = {}
    outside: set[str] = set()
    has_own = is_sized = computes = False
    pending: list[tuple[Node, bool]] = [(root, True)]
    while pending:
        node, is_root = pending.pop()
        part = None if is_root else _reference(node, model_type, class_name)
        if part is not None and _is_told(node, part, model_type):
            covered[node.scope] = None
            has_own = has_own or part[0] == ""
            continue
        outside.add(node.scope)
        is_sized = is_sized or "*" in node.children or _computes(node)
        computes = computes or _computes(node)
        pending += [(child, False) for below in node.children.values() for child in below]
    skipped = () if computes else tuple(scope for scope in covered if scope and scope not in outside)
    return tuple(tuple(scope.split(".")) for scope in skipped), has_own and not is_sized


def _computes(node: Node) -> bool:
    """Whether a module has a buffer with a size that no checkpoint tells."""
    return any(
        not leaf.persistent and any(size > 1 for each in leaf.seen for size in each.shape)
        for leaf in node.leaves.values()
    )


def _is_told(node: Node, part: tuple[str, str], model_type: str) -> bool:
    """Whether a part is what the table says of its class, and not changed by the model around it."""
    scope, what = part
    own_type = node.config_type if scope else model_type
    name = auto_classes(own_type).get(what, what) if scope else what
    if (own_type, name) in _open:
        return True
    own = class_tree(own_type, name)
    return own is not None and _is_within(node, own.root, "", [])


def _reference(node: Node, model_type: str, class_name: str) -> tuple[str, str] | None:
    """How another table names a part.

    The path of its config and the mapping, or "" and a class of this family.
    """
    if not is_pretrained(node):
        return None
    if node.scope == "":
        if node.class_name != class_name and node.class_name in class_names(model_type):
            return "", node.class_name
        return None
    autos = auto_classes(node.config_type)
    for auto, name in autos.items():
        if name == node.class_name:
            return node.scope, auto
    return (node.scope, node.class_name) if node.class_name in class_names(node.config_type) else None


@dataclass
class _Writer:
    """Numbers the distinct nodes of a family."""

    model_type: str
    rows: list[Any] = field(default_factory=list)
    known: dict[str, int] = field(default_factory=dict)
    used: dict[str, None] = field(default_factory=dict)
    """Figures of the config that expressions read."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    """Of the node that is being written: what no expression was found for."""

    def number(self, row: Any) -> int:
        """The number of a node with this content."""
        key = repr(row)
        if key not in self.known:
            self.known[key] = len(self.rows)
            self.rows.append(row)
        return self.known[key]

    def doubted(self, number: int, doubt: str) -> int:
        """The number of a node like this one of which something is not settled."""
        row = [*self.rows[number], *["", "", {}, [], {}][len(self.rows[number]) :]]
        row[4] = {**row[4], "doubts": [*row[4].get("doubts", []), doubt]}
        return self.number(row)

    def node(self, node: Node, class_name: str, scope: str, path: str = "") -> int:
        """Write a node and all below it."""
        if path:
            reference = self._reference_row(node, class_name)
            if reference is not None:
                return self.number(reference)
        if node.facts:
            self.facts.setdefault(node.class_name, node.facts | self._repeats(node))
        if is_pretrained(node) and node.config_type:
            self.types.setdefault(node.config_type)
        extras: dict[str, Any] = {}
        outer, self.doubts = self.doubts, []
        own_doubts = self.doubts
        if node.scope != scope:
            extras["scope"] = node.scope
        if is_pretrained(node):
            extras["model"] = node.config_type
        computed: list[list[Any]] = []
        tokens: list[str] = []
        for name, leaf in node.leaves.items():
            if leaf.persistent:
                tokens.append(("%" if leaf.kind == "buffer" else "") + name + ("?" if leaf.optional else ""))
            else:
                tokens.append(f"&{len(computed)}")
                computed.append(self._computed(node, name, leaf))
        children: dict[str, Any] = {}
        for segment, below in node.children.items():
            mark = segment + ("?" if segment in node.optional else "")
            numbers = [
                self.node(child, class_name, node.scope, f"{path}.{segment}" if path else segment)
                for child in below
            ]
            self.doubts = own_doubts
            children[mark] = numbers[0] if len(numbers) == 1 else numbers
            if segment == "*":
                count = self._count(node)
                if count is not None:
                    extras["count"] = count
            self._tell_apart(node, segment, below, extras)
        if own_doubts:
            extras["doubts"] = own_doubts
            unsettled.extend(f"{self.model_type} {class_name} {path}: {doubt}" for doubt in own_doubts)
        self.doubts = outer
        row: list[Any] = [node.class_name, " ".join(tokens), children, computed, extras]
        while len(row) > 1 and not row[-1]:
            row.pop()
        return self.number(row)

    def _tell_apart(self, node: Node, segment: str, below: list[Node], extras: dict[str, Any]) -> None:
        """Write down what says which class stands at a child, and whether one does, where names do not."""
        if len({look(child) for child in below}) < len(below):
            self._place(node, segment, below, extras)
        if len(below) > 1 and segment not in extras.get("which", {}) and any(map(_is_computed_alone, below)):
            conditions = self._conditions(node, below)
            if conditions is not None:  # of a class that is not stored the headers show nothing
                extras.setdefault("which", {})[segment] = conditions
        if segment in node.optional and _is_computed_only(below):
            having = {id(each) for child in below for each in child.builds}
            condition = condition_of(
                [id(each) in having for each in node.builds], self._figures(node, node.builds), segment
            )
            if condition is None:
                self.doubts.append(f"whether '{segment}' is there")
            else:
                extras.setdefault("when", {})[segment] = condition
                self._use(condition)

    def _place(self, node: Node, segment: str, below: list[Node], extras: dict[str, Any]) -> None:
        """Write which of several classes stands at which number, where names do not tell them apart."""
        numbers = {child.class_name: number for number, child in enumerate(below)}
        conditions = self._conditions(node, below)
        if conditions is not None:
            extras.setdefault("which", {})[segment] = conditions
            return
        places = node.places.get(segment, {})
        known = {
            place: numbers[next(iter(names))] for place, names in sorted(places.items()) if len(names) == 1
        }
        if any(len(names) > 1 for names in places.values()) or not known:
            self.doubts.append(f"which of {', '.join(sorted(numbers))} stands where")
        if len(known) <= 256:
            extras.setdefault("places", {})[segment] = known

    def _conditions(self, node: Node, below: list[Node]) -> list[str] | None:
        """Figures of the config that say which class stands at a child; None where the number says it."""
        figures = self._figures(node, node.builds)
        found: list[str] = []
        for child in below:
            having = {id(each) for each in child.builds}
            present = [id(each) in having for each in node.builds]
            condition = None if all(present) else condition_of(present, figures, child.class_name)
            if condition is None:
                return None
            found.append(condition)
        for condition in found:
            self._use(condition)
        return found

    def _reference_row(self, node: Node, class_name: str) -> dict[str, Any] | None:
        part = _reference(node, self.model_type, class_name)
        if part is None:
            return None
        scope, what = part
        model_type = node.config_type if scope else self.model_type
        name = auto_classes(model_type).get(what, what) if scope else what
        if (model_type, name) in _open:
            return None
        own = class_tree(model_type, name)
        if own is None:
            return None
        loose: list[str] = []
        if not _is_within(node, own.root, "", loose):
            return None
        row: dict[str, Any] = {"of": what, "scope": scope} if scope else {"of": what}
        if loose:
            row["without"] = loose
        return row

    def _figures(self, node: Node, builds: list[Build]) -> list[dict[str, Any]]:
        return [figures_of(each.config, node.scope) for each in builds]

    def _use(self, expression: str | None) -> None:
        if expression and "override(" in expression:
            self.used.setdefault("per_layer_config")
        for name in re.findall(r"[A-Za-z_][A-Za-z_0-9]*", re.sub(r"'[^']*'", "", expression or "")):
            self.used.setdefault(name)

    def _computed(self, node: Node, name: str, leaf: Leaf) -> list[Any]:
        seen = leaf.seen
        figures = self._figures(node, [each.build for each in seen])
        lengths = {len(each.shape) for each in seen}
        dims: list[str] = []
        if len(lengths) == 1:
            for place in range(lengths.pop()):
                dimension = dimension_of(name, seen, figures, place)
                if dimension is None:
                    sizes = sorted({each.shape[place] for each in seen})
                    self.doubts.append(
                        f"size {place} of '{name}' ({min(sizes)} to {max(sizes)} in the table's builds)"
                    )
                    dimension = str(max(sizes))
                dims.append(dimension)
        else:
            self.doubts.append(f"the shape of '{name}'")
            dims = [str(size) for size in max((each.shape for each in seen), key=np.prod)]
        dtypes = {each.dtype for each in seen if each.build.changed is None}
        others = {each.dtype for each in seen if each.build.changed is not None}
        dtype = (
            "default" if dtypes == {"bfloat16"} and others <= {"float32"} else next(iter(dtypes or others))
        )
        row: list[Any] = [name, dtype, dims]
        having = {id(each.build) for each in seen}
        if leaf.optional:
            builds = node.builds
            condition = condition_of(
                [id(each) in having for each in builds], self._figures(node, builds), name
            )
            if condition is None:
                self.doubts.append(f"whether '{name}' is there")
            elif condition != "True":
                row.append(condition)
                self._use(condition)
        for dimension in dims:
            self._use(dimension)
        return row

    def _repeats(self, node: Node) -> dict[str, Any]:
        """Write which parts share weights by turns, in place of ties that hold for one number of layers."""
        found: dict[str, str] = {}
        for template, counts in node.periods.items():
            wanted = np.array([float(period) for _, period in counts])
            figures = self._figures(node, [each for each, _ in counts])
            period = str(counts[0][1]) if (wanted == wanted[0]).all() else scalar_of(wanted, figures)
            if period is None:
                self.doubts.append(f"which of '{template}' share weights")
            else:
                found[template] = period
                self._use(period)
        return {"ties": {}, "repeats": found} if found else {}

    def _count(self, node: Node) -> str | None:
        counts = node.counts.get("*", [])
        if not counts:
            return None
        by_build: dict[int, set[int]] = {}
        for each, number in counts:
            by_build.setdefault(id(each), set()).add(number)
        if any(len(numbers) > 1 for numbers in by_build.values()):
            return None
        builds = list({id(each): each for each, _ in counts}.values())
        wanted = np.array([float(next(iter(by_build[id(each)]))) for each in builds])
        if (wanted == wanted[0]).all():  # what no figure changed need not be the same everywhere
            return str(int(wanted[0])) if wanted[0] <= _FEW else None
        rows = [
            {key: value for key, value in row.items() if _counts(key)} for row in self._figures(node, builds)
        ]
        found = scalar_of(wanted, rows)
        self._use(found)
        return found


_FEW = 4


def _counts(key: str) -> bool:
    return bool(re.search(r"layer|depth|block|expert|stage|level|num_|n_|hash|codebook|group", str(key)))


def _is_within(part: Node, whole: Node, path: str, loose: list[str]) -> bool:
    """Whether a node is what a table of its own says; what it lacks of that goes to `loose`."""
    if part.class_name != whole.class_name:
        return False
    for name, leaf in part.leaves.items():
        known = whole.leaves.get(name)
        if known is None or (known.kind, known.persistent) != (leaf.kind, leaf.persistent):
            return False
    for name, leaf in whole.leaves.items():
        if name not in part.leaves and not leaf.optional:
            loose.append(f"{path}.{name}" if path else name)
    for segment, below in whole.children.items():
        own = part.children.get(segment)
        name = f"{path}.{segment}" if path else segment
        if own is None:
            if segment not in whole.optional or _is_computed_only(below):
                loose.append(name)
            continue
        for child in own:
            same = next((each for each in below if each.class_name == child.class_name), None)
            if same is None or not _is_within(child, same, name, loose):
                return False
    return set(part.children) <= set(whole.children)


def _is_computed_alone(node: Node) -> bool:
    return _is_computed_only([node])


def _is_computed_only(nodes: list[Node]) -> bool:
    return not any(
        leaf.persistent for node in nodes for _, each in walk(node) for leaf in each.leaves.values()
    )


_DOUBTS = {
    "marian": "its tables of positions, which no checkpoint holds",
    "grounding-dino": "which stages of its backbone have norms",
    "mm-grounding-dino": "which stages of its backbone have norms",
    "nemo_speechlm": "conversions of its audio part",
}
"""What the tests' sweep found that no expression is right for, by type: said of each class."""


def family_table(model_type: str) -> dict[str, Any]:
    """All that the table says of one type of config."""
    writer = _Writer(model_type)
    classes: dict[str, int] = {}
    samples: list[Any] = []
    left_out: dict[str, str] = {}
    own_config = config_type(model_type)
    for name in class_names(model_type):
        tree = class_tree(model_type, name)
        if tree is None:
            left_out[name] = _failed[model_type, name]
            print(f"  {model_type} {name}: {left_out[name]}", file=sys.stderr)
            continue
        classes[name] = writer.node(tree.root, name, "")
        if model_type in _DOUBTS:
            classes[name] = writer.doubted(classes[name], _DOUBTS[model_type])
        if not samples and type(tree.builds[0].config) is own_config:
            samples = [each.config for each in tree.builds]
    table: dict[str, Any] = {"model_type": model_type, "transformers": transformers.__version__}
    try:
        default = samples[0] if samples else own_config()
    except Exception as error:  # noqa: BLE001 - a config without defaults has none to tell
        print(f"  {model_type}: {error}", file=sys.stderr)
    else:
        table |= config_section(default, samples, writer.used)
    autos = {auto: name for auto, name in auto_classes(model_type).items() if name in classes}
    if autos:
        table["autos"] = autos
    conversions = {
        name: [conversion_row(rule) for rule in rules]
        for name in (*dict.fromkeys([*writer.facts, *classes]), *writer.types)
        if (rules := get_checkpoint_conversion_mapping(name))
    }
    if conversions:
        table["conversions"] = conversions
    if writer.facts:
        table["facts"] = writer.facts
    if classes:
        table["nodes"] = writer.rows
        table["classes"] = classes
    if left_out:
        table["left_out"] = left_out
    return table


def legacy_conversions() -> list[dict[str, Any]]:
    """Renamings that hold for every class."""
    return [conversion_row(rule) for rule in get_checkpoint_conversion_mapping("legacy") or ()]
