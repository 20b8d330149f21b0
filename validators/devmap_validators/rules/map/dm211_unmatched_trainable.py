"""DM211: a path in `workload.trainable` names nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.suggestion import explain_miss, near_path, sure_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.workload is None:
        return
    for place, key in enumerate(config.workload.trainable or ()):
        if not inventory.index.match(key):
            near = near_path(key, inventory.index)
            label = f"did you mean '{near}'?" if near else ""
            hint = "" if near else explain_miss(key, inventory.index)
            path = ("workload", "trainable", place)
            sure = sure_path(key, inventory.index)
            edit = (
                rename(context.document.position(path), key, sure)
                if sure is not None and sure == near
                else None
            )
            yield Report(
                f"{shown(key)} in trainable is not a module of this model",
                path,
                label=label,
                help=hint,
                edit=edit,
            )


RULE = Rule(
    code="DM211",
    name="unmatched-trainable",
    severity=Severity.ERROR,
    summary="A path in `workload.trainable` names nothing",
    why=(
        "Only what is trained gets gradients and optimizer states. A path that names nothing leaves out "
        "their bytes, and "
        "training runs out of memory in its first step."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, trainable: [lm_head]}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 20GB}
workload: {kind: training, trainable: ['model.layers[4-7]']}
""",
    check=_check,
)
