"""DM202: parameters or buffers that no key of the device map covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import assignment_of
from devmap_validators.checks.groups import counted, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


_MOST_GROUPS = 8


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
