"""DM204: weights that are tied lie on several devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.assignment import split_ties
from devmap_validators.checks.config_map import anchors_of, assignment_of, map_path
from devmap_validators.checks.heads import is_head_and_embedding
from devmap_validators.checks.wording import split_tie

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    assignment, inventory, config = assignment_of(context), context.inventory, context.document.config
    if assignment is None or inventory is None or config is None:
        return
    if context.machine is not None and context.machine.nodes:
        return  # stages of several nodes each have a copy; DM703 says what that means in training
    for placed in split_ties(assignment):
        names = [name for name, _ in placed]
        if is_head_and_embedding(inventory, names):
            continue  # DM213 says it with the names that people know
        key = max(anchors_of(context, names), key=lambda key: (key.count("."), len(key)))
        hint = "give all of them the same device, or list them in same_device"
        yield Report(split_tie(inventory, placed, config.model.dtype), map_path(context, key), help=hint)


RULE = Rule(
    code="DM204",
    name="split-ties",
    severity=Severity.WARNING,
    summary="Weights that are tied lie on several devices",
    why=(
        "Tied tensors are one storage under several names. On two devices they are two copies: each costs "
        "memory, and a trained"
        " one drifts away from the other. A config may ask for it, and its plan says which copy costs "
        "what; a device map that a "
        "program hands over is refused."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 1, 'model.layers.3': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
