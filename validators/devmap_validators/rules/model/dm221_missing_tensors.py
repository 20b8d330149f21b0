"""DM221: the checkpoint lacks tensors of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.groups import counted, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


_MOST_GROUPS = 8


def _check(context: Context) -> Iterator[Report]:
    inventory = context.inventory
    if inventory is None or inventory.mapping is None or not inventory.mapping.missing:
        return
    missing = inventory.mapping.missing
    # Headers alone may not tell the shape of what is absent; it is in no inventory then, and has no bytes to
    # show.
    unknown = [name for name in missing if name not in inventory.tensors]
    groups = [
        str(group) for group in fold(inventory, [name for name in missing if name in inventory.tensors])
    ]
    if unknown:
        groups.append(f"{counted(len(unknown), 'tensor')} of the model: {quoted(unknown)}")
    for group in groups[:_MOST_GROUPS]:
        message = f"the checkpoint lacks {group}"
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is a shard missing, or is it the checkpoint of another model?",
        )


RULE = Rule(
    code="DM221",
    name="missing-tensors",
    severity=Severity.ERROR,
    summary="The checkpoint lacks tensors of the model",
    why=(
        "A model with a tensor that no file holds cannot be loaded. Loaders that fill it with random "
        "numbers give a model that "
        "runs and answers nonsense."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./with-a-missing-shard}
max_memory: {0: 2GB}
""",
    check=_check,
)
