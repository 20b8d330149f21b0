"""Write the built-in table of architectures from transformers' own code.

Builds every class of each family on the meta device from several tiny configs, and merges what they are made
of. Run it with the transformers version that the table should follow:

    python scripts/make_architectures.py            # rewrites devmap/inventory/architectures/
    python scripts/make_architectures.py --check    # says whether the files are fresh
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from families import FAMILIES, Family
from transformers.models.auto import modeling_auto

from devmap.inventory.expression import evaluate
from devmap.inventory.figures import FIGURES, completed
from devmap.inventory.live_match import conversions_of, rules_of
from devmap.inventory.module import read_module

if TYPE_CHECKING:
    from torch import nn

    from devmap.inventory.model import Inventory

FOLDER = Path(__file__).parents[1] / "devmap" / "inventory" / "architectures"
_HEADS = (
    "MODEL_MAPPING_NAMES",
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
)


def build(class_name: str, model_type: str, figures: dict[str, object], dtype: torch.dtype) -> nn.Module:
    """A model on meta."""
    config = transformers.CONFIG_MAPPING[model_type](**figures)
    with torch.device("meta"):
        # The entry that takes a dtype.
        return getattr(transformers, class_name)._from_config(config, dtype=dtype)  # noqa: SLF001


def class_names(model_type: str) -> list[str]:
    """The base class first, then the common heads."""
    found: list[str] = []
    for table in _HEADS:
        name = getattr(modeling_auto, table).get(model_type)
        found += [name] if isinstance(name, str) and name not in found else []
    return found


# --- one model as a tree of templates
# -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Node:
    """A module, or all modules of one class that stand at one template."""

    class_name: str
    tensors: dict[str, dict[str, object]]
    children: dict[str, list[Node]]
    """One node per class that stands there."""
    count: int | None = None
    optional: frozenset[str] = frozenset()
    """Children that some instances lack."""


def tree_of(inventory: Inventory, path: str = "") -> Node:
    """The folded tree below a module: numbered children of one class become `*`."""
    tensors = {
        tensor.name.rpartition(".")[2]: {
            "kind": tensor.kind,
            "persistent": tensor.persistent,
            "dtype": tensor.dtype,
            "shape": tensor.shape,
        }
        for tensor in inventory.own_tensors[path]
    }
    node = Node(inventory.modules[path], tensors, {})
    children = inventory.children[path]
    segments = [child.rpartition(".")[2] for child in children]
    numbered = bool(segments) and all(segment.isdecimal() for segment in segments)
    if numbered and len({inventory.modules[child] for child in children}) == 1:
        merged = tree_of(inventory, children[0])
        for child in children[1:]:
            merged = merge(merged, tree_of(inventory, child))
        merged.count = len(children)
        node.children["*"] = [merged]
    else:
        for segment, child in zip(segments, children, strict=True):
            node.children[segment] = [tree_of(inventory, child)]
    return node


def merge(first: Node, second: Node) -> Node:
    """What is in either; what is not in both is optional."""
    tensors = {
        name: {
            **first.tensors.get(name, second.tensors.get(name, {})),
            "optional": _is_optional(first.tensors, second.tensors, name),
        }
        for name in _merged_order(list(first.tensors), list(second.tensors))
    }
    children: dict[str, list[Node]] = {}
    for name in _merged_order(list(first.children), list(second.children)):
        children[name] = _merged_nodes(first.children.get(name, []), second.children.get(name, []))
    optional = first.optional | second.optional | (set(first.children) ^ set(second.children))
    return Node(first.class_name, tensors, children, first.count, frozenset(optional))


def _merged_nodes(first: list[Node], second: list[Node]) -> list[Node]:
    """One node per class."""
    found = list(first)
    for node in second:
        same = next(
            (number for number, known in enumerate(found) if known.class_name == node.class_name), None
        )
        if same is None:
            found.append(node)
        else:
            found[same] = merge(found[same], node)
    return found


def _is_optional(
    first: dict[str, dict[str, object]], second: dict[str, dict[str, object]], name: str
) -> bool:
    return any(bool(side.get(name, {"optional": True}).get("optional")) for side in (first, second))


def _merged_order(first: list[str], second: list[str]) -> list[str]:
    """Both orders kept: what only the second has stands after what it follows there."""
    found = list(first)
    for place, name in enumerate(second):
        if name not in found:
            before = second[place - 1] if place else None
            found.insert(found.index(before) + 1 if before is not None else 0, name)
    return found


# --- the tree as rows
# ---------------------------------------------------------------------------------------------------


def rows(node: Node, family: Family, counts: dict[int, str], path: str = "") -> list[dict[str, object]]:
    """The rows of a class: its modules in order, alternatives side by side."""
    return _rows([node], family, counts, path, optional=False)


def _rows(
    nodes: list[Node], family: Family, counts: dict[int, str], path: str, *, optional: bool
) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for node in nodes:
        row: dict[str, object] = {"path": path, "class": node.class_name}
        if path.rpartition(".")[2] == "*":
            row["count"] = counts.get(node.count or 0)
        if optional:
            row["optional"] = True
        tensors = [_tensor_row(path, name, tensor, family) for name, tensor in node.tensors.items()]
        if tensors:
            row["tensors"] = tensors
        if len(nodes) > 1:
            row["children"] = list(node.children)
        found.append(row)
    names: list[str] = []
    for node in nodes:
        names = _merged_order(names, list(node.children))
    for name in names:
        below: list[Node] = []
        for node in nodes:
            below = _merged_nodes(below, node.children.get(name, []))
        is_optional = any(name in node.optional for node in nodes)
        found += _rows(below, family, counts, f"{path}.{name}" if path else name, optional=is_optional)
    return found


def _tensor_row(path: str, name: str, tensor: dict[str, object], family: Family) -> object:
    if tensor["kind"] == "parameter":
        return f"{name}?" if tensor.get("optional") else name
    if tensor["persistent"]:
        return {"name": name, "kind": "buffer", **({"optional": True} if tensor.get("optional") else {})}
    full = f"{path}.{name}" if path else name
    for suffix, spec in family.buffers.items():
        if full.endswith(suffix):
            return {"name": name, "kind": "buffer", "persistent": False, **spec}
    raise SystemExit(f"families.py says nothing of the buffer {full}: {tensor}")


# --- one family
# ---------------------------------------------------------------------------------------------------------


def table_of(family: Family) -> dict[str, object]:
    """All that the table says of one model type."""
    names = [name for name in class_names(family.model_type) if name not in family.leave_out]
    return {
        "model_type": family.model_type,
        "transformers": transformers.__version__,
        "base_class": names[0],
        "aliases": aliases_of(family),
        "defaults": defaults_of(family),
        "derived": family.derived,
        "conversions": conversions_in(names[0], family),
        "classes": {name: class_table(name, family) for name in names},
    }


def conversions_in(name: str, family: Family) -> list[dict[str, object]]:
    """How transformers reads a checkpoint into a class."""
    return [
        {
            "sources": list(rule.sources),
            "targets": list(rule.targets),
            **(
                {"operations": [[operation, list(dims)] for operation, dims in rule.operations]}
                if rule.operations
                else {}
            ),
            **({"scope": rule.scope} if rule.scope is not None else {}),
        }
        for rule in conversions_of(build(name, family.model_type, family.tiny, torch.float32))
    ]


def aliases_of(family: Family) -> dict[str, str]:
    """Other names under which a config may state a figure."""
    return dict(transformers.CONFIG_MAPPING[family.model_type].attribute_map)


def defaults_of(family: Family) -> dict[str, object]:
    """Class defaults of the figures that are kept or used, as the config class declares them, before it computes anything."""
    config_class = transformers.CONFIG_MAPPING[family.model_type]
    wanted = {*FIGURES, *family.uses}
    declared = (
        {field.name: field.default for field in dataclasses.fields(config_class)}
        if dataclasses.is_dataclass(config_class)
        else {}
    )
    plain = config_class().to_dict()
    found: dict[str, object] = {}
    for key in sorted(wanted & plain.keys()):
        value = declared[key] if key in declared else plain[key]
        if f"{key}*" in family.derived:
            value = None
        found[key] = value if isinstance(value, int | float | str | bool | list) else None
    return {
        "model_type": family.model_type,
        **{key: value for key, value in found.items() if value is not None},
    }


def class_table(name: str, family: Family) -> dict[str, object]:
    """One class: its modules, ties and rules."""
    merged: Node | None = None
    counts = {
        value: key
        for key, value in family.tiny.items()
        if key in family.layer_counts and isinstance(value, int)
    }
    for variant in ({}, *family.variants):
        node = tree_of(read_module(build(name, family.model_type, {**family.tiny, **variant}, torch.float32)))
        merged = node if merged is None else merge(merged, node)
    assert merged is not None
    model = build(name, family.model_type, family.tiny, torch.float32)
    rules = rules_of(model)
    ties = {
        switch: [
            list(group)
            for group in read_module(
                build(name, family.model_type, {**family.tiny, "tie_word_embeddings": switch}, torch.float32)
            ).ties
        ]
        for switch in (True, False)
    }
    of_base = conversions_in(class_names(family.model_type)[0], family)
    own = conversions_in(name, family)
    return {
        **({} if own == of_base else {"conversions": own}),
        "base_model_prefix": rules.base_model_prefix,
        "no_split": list(read_module(model).no_split_module_classes),
        "ignored": list(rules.ignored),
        "tied": ties[True],
        "untied": ties[False],
        "modules": rows(merged, family, counts),
    }


def render(table: dict[str, object]) -> str:
    """JSON with a module on a line."""
    classes = table["classes"]
    assert isinstance(classes, dict)
    lines = ["{"]
    lines += [
        f'"{key}": {json.dumps(value)},'
        for key, value in table.items()
        if key not in {"classes", "conversions"}
    ]
    conversions = table["conversions"]
    assert isinstance(conversions, list)
    lines += ['"conversions": [', ",\n".join(json.dumps(rule) for rule in conversions), "],", '"classes": {']
    blocks: list[str] = []
    for name, entry in classes.items():
        block = [f'"{name}": {{'] + [
            f'"{key}": {json.dumps(value)},' for key, value in entry.items() if key != "modules"
        ]
        block += ['"modules": [', ",\n".join(json.dumps(row) for row in entry["modules"]), "]}"]
        blocks.append("\n".join(block))
    return "\n".join([*lines, ",\n".join(blocks), "}", "}"]) + "\n"


def verify(family: Family) -> None:
    """The figures that the table completes are those that the config class computes."""
    defaults = defaults_of(family)
    for variant in ({}, *family.variants):
        figures = {**family.tiny, **variant}
        config = transformers.CONFIG_MAPPING[family.model_type](**figures)
        found = completed(figures, aliases=aliases_of(family), defaults=defaults, derived=family.derived)
        theirs = config.to_dict()
        wrong = {
            key: (found.get(key), theirs.get(key)) for key in FIGURES if found.get(key) != theirs.get(key)
        }
        if wrong:
            raise SystemExit(f"{family.model_type} with {variant}: {wrong}")
        for spec in family.buffers.values():
            for expression in (*spec.get("shape", ()), spec.get("when", "True")):
                evaluate(str(expression), found)


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 when a file is not fresh"
    )
    parser.add_argument("model_types", nargs="*", help="default: all")
    arguments = parser.parse_args()
    stale: list[str] = []
    for family in FAMILIES:
        if arguments.model_types and family.model_type not in arguments.model_types:
            continue
        verify(family)
        path = FOLDER / f"{family.model_type}.json"
        content = render(table_of(family))
        if arguments.check:
            stale += (
                [] if path.exists() and path.read_text(encoding="utf-8") == content else [family.model_type]
            )
        else:
            path.write_text(content, encoding="utf-8")
            print(f"{path.name}: {len(content):,} bytes")
    if stale:
        print(f"not fresh: {', '.join(stale)}; run python scripts/make_architectures.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
