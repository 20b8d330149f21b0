"""DM203: a module whose class may not be split lies on several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import split_blocks
from devmap_validators.checks.config_map import anchors_of, assignment_of, map_path, no_split_classes
from devmap_validators.checks.groups import counted
from devmap_validators.checks.wording import split_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context
    from devmap_validators.checks.assignment import SplitBlock


def _check(context: Context) -> Iterator[Report]:
    assignment = assignment_of(context)
    if assignment is None or (context.machine is not None and context.machine.nodes):
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


RULE = Rule(
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
    check=_check,
)
