"""DM202, DM203: tensors that the map leaves out, and blocks that it takes apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import split_blocks
from devmap_validators.checks.config_map import (
    anchors_of,
    assignment_of,
    map_path,
    no_split_classes,
    nodes_of,
)
from devmap_validators.checks.wording import counted, fold, split_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap_validators.checks.assignment import SplitBlock

__all__ = ["RULES"]


_MOST_GROUPS = 8


def _uncovered_tensors(context: Context) -> Iterator[Report]:
    assignment, inventory, config = assignment_of(context), context.inventory, context.document.config
    if assignment is None or inventory is None or config is None or not assignment.uncovered:
        return
    groups = fold(inventory, assignment.uncovered, dtype=config.model.dtype)
    hint = 'add a key for them, or "": auto to have the rest placed'
    for group in groups[:_MOST_GROUPS]:
        yield Report(f"no key covers {group}", ("device_map",), on_key=True, help=hint)
    if len(groups) > _MOST_GROUPS:
        rest = counted(sum(len(group.tensors) for group in groups[_MOST_GROUPS:]), "more tensor")
        yield Report(
            f"no key covers {rest} in {counted(len(groups) - _MOST_GROUPS, 'other place')}",
            ("device_map",),
            on_key=True,
            help=hint,
        )


DM202 = Rule(
    code="DM202",
    name="uncovered-tensors",
    severity=Severity.ERROR,
    summary="Parameters or buffers that no key of the device map covers",
    why=(
        "Every tensor needs a device, buffers too. Without one the load fails, or the tensor stays "
        "without memory and the first"
        ' forward pass raises. The key "" stands for everything that no other key names.'
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {model: 0, lm_head: 0}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {model.embed_tokens: 0, 'model.layers[0-1]': 0, lm_head: 0}
max_memory: {0: 2GB}
""",
    check=_uncovered_tensors,
)


def _straddling_class(context: Context) -> Iterator[Report]:
    assignment = assignment_of(context)
    if assignment is None or nodes_of(context) is not None:
        return  # DM701 says it of stages
    by_keys: dict[tuple[str, ...], list[SplitBlock]] = {}
    for block in split_blocks(assignment, no_split_classes(context)):
        keys = anchors_of(context, [name for _, name in block.parts])
        by_keys.setdefault(keys, []).append(block)
    for keys, blocks in by_keys.items():
        # The longest key is the one that takes a part out of a block that a shorter one places whole.
        key = max(keys, key=lambda key: (key.count("."), len(key)))
        more = (
            f", and {counted(len(blocks) - 1, 'other block')} up to '{blocks[-1].path}'"
            if len(blocks) > 1
            else ""
        )
        hint = (
            f"place '{blocks[0].path}' whole, or remove {blocks[0].class_name} from no_split_module_classes"
        )
        yield Report(split_block(blocks[0]) + more, map_path(context, key), on_key=True, help=hint)


DM203 = Rule(
    code="DM203",
    name="straddling-class",
    severity=Severity.ERROR,
    summary="A module whose class may not be split lies on several devices",
    why=(
        "A block with a residual connection adds its input to its output: when its parts lie on different "
        "devices, the addition"
        ' fails with "Expected all tensors to be on the same device", the most common error of placed models.'
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers.2.mlp': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_straddling_class,
)


RULES = (DM202, DM203)
