"""Blocks that a model's own code does not ask to keep whole, and that have to be all the same.

A block adds what it computes to its input. Spread over devices, the two summands meet on different ones:
nothing moves what passes from one line of a forward to the next. Transformers' classes name their blocks in
`_no_split_modules`, but many name none (most encoders), or leave one of their towers out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["repeated_blocks"]


def repeated_blocks(modules: Mapping[str, str], whole: Collection[str]) -> tuple[str, ...]:
    """Return the classes of the repeated blocks that no class in `whole` covers, sorted.

    `modules` maps paths to class names, a module before those inside it. A block is a numbered member of a
    list whose members are all of one class and have modules inside. Of nested lists the outer one counts,
    unless its members are stages: modules that hold a list of blocks directly, and nothing that attends.
    Linear in the number of modules.

    >>> tree = {"": "Bert", "layer": "ModuleList", "layer.0": "BertLayer", "layer.0.out": "Linear"}
    >>> repeated_blocks(tree, ())
    ('BertLayer',)
    >>> repeated_blocks(tree, ("BertLayer",))
    ()
    """
    children: dict[str, list[str]] = {}
    covering: set[str] = set()
    inside: set[str] = set()
    for path, class_name in modules.items():
        if not path:
            continue
        parent = path.rpartition(".")[0]
        children.setdefault(parent, []).append(path)
        if class_name in whole or parent in inside:
            inside.add(path)
            covering.add(path)
    for path in reversed(list(modules)):
        if path in covering and path:
            covering.add(path.rpartition(".")[0])
    found: set[str] = set()
    beyond: set[str] = set()
    for path, class_name in modules.items():
        parent = path.rpartition(".")[0]
        if parent in beyond and path:
            beyond.add(path)
            continue
        if path in covering or not _is_block(path, class_name, modules, children):
            continue
        if not _is_stage(path, modules, children):
            found.add(class_name)
            beyond.add(path)
    return tuple(sorted(found))


def _is_block(
    path: str, class_name: str, modules: Mapping[str, str], children: Mapping[str, list[str]]
) -> bool:
    parent, _, last = path.rpartition(".")
    return (
        last.isdecimal()
        and bool(class_name)
        and path in children
        and len({modules[member] for member in children[parent]}) == 1
    )


_ATTENDS = ("attn", "attention", "mixer", "mamba", "conv")


def _is_stage(path: str, modules: Mapping[str, str], children: Mapping[str, list[str]]) -> bool:
    own = children[path]
    holds_blocks = any(
        _is_block(member, modules[member], modules, children)
        for listed in own
        for member in children.get(listed, ())
    )
    return holds_blocks and not any(
        word in f"{each.rpartition('.')[2]} {modules[each]}".lower() for each in own for word in _ATTENDS
    )
