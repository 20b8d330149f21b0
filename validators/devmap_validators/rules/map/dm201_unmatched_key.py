"""DM201: a key of the device map names no module or tensor of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap.inventory.stored_names import runtime_path
from devmap_validators.checks.config_map import map_path
from devmap_validators.checks.suggestion import explain_miss, near_path, sure_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


_MOST_SUGGESTIONS = 50
"""A map with one wrong prefix has the same fault in every key."""


def _check(context: Context) -> Iterator[Report]:
    if context.expansion is None or context.inventory is None:
        return
    index = context.inventory.index
    for number, key in enumerate(context.expansion.unmatched):
        path = map_path(context, key)
        near = near_path(key, index) if number < _MOST_SUGGESTIONS else None
        message = (
            f"{shown(key)} is not a module of this model"
            if "*" not in key
            else f"the glob {shown(key)} matches no module of this model"
        )
        stored = runtime_path(context.inventory, key) if number < _MOST_SUGGESTIONS else None
        if stored is not None:
            edit = rename(context.document.position(path, key=True), key, stored)
            explained = f"{shown(key)} is its name in the checkpoint; the running model calls it '{stored}'"
            yield Report(
                message, path, on_key=True, label=f"at run time '{stored}'", help=explained, edit=edit
            )
            continue
        if near is None:
            yield Report(message, path, on_key=True, help=explain_miss(key, index))
            continue
        edit = (
            rename(context.document.position(path, key=True), key, near)
            if near == sure_path(key, index)
            else None
        )
        yield Report(message, path, on_key=True, label=f"did you mean '{near}'?", edit=edit)


RULE = Rule(
    code="DM201",
    name="unmatched-key",
    severity=Severity.ERROR,
    summary="A key of the device map names no module or tensor of the model",
    why=(
        "A key that matches nothing has no effect: the modules that it was meant for fall to another key, "
        "or to none. Loaders "
        "only warn, and the model runs out of memory or computes on the wrong device. A range or glob has "
        "to name one path at "
        "least."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, '': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layer[0-1]': 0, '': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
