"""DM209: a path in `same_device` or `forbid` names nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path
from devmap_validators.checks.suggestion import explain_miss, near_path, sure_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None:
        return
    named: list[tuple[str, DocumentPath]] = []
    for place, group in enumerate(config.same_device):
        named += [(key, ("same_device", place, item)) for item, key in enumerate(group)]
    for device, keys in config.forbid.items():
        here = device_path(context, ("forbid",), device)
        named += [(key, (*here, item)) for item, key in enumerate(keys)]
    for key, path in named:
        if not inventory.index.match(key):
            near = near_path(key, inventory.index)
            label = f"did you mean '{near}'?" if near else ""
            hint = "" if near else explain_miss(key, inventory.index)
            sure = sure_path(key, inventory.index)
            edit = (
                rename(context.document.position(path), key, sure)
                if sure is not None and sure == near
                else None
            )
            yield Report(
                f"{shown(key)} in {path[0]} is not a module of this model",
                path,
                label=label,
                help=hint,
                edit=edit,
            )


RULE = Rule(
    code="DM209",
    name="unmatched-constraint",
    severity=Severity.ERROR,
    summary="A path in `same_device` or `forbid` names nothing",
    why="A constraint on a module that is not there constrains nothing, so what it should prevent can "
    "happen.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
forbid: {cpu: [lm_head]}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, cpu: 2GB}
forbid: {cpu: [lm_heads]}
""",
    check=_check,
)
