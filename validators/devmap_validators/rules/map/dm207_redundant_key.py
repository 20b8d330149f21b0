"""DM207: a key says what a shorter one says already."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device, device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import map_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    in_conflict = {key for _, *keys in expansion.conflicts for key in keys}
    for key, paths in expansion.paths.items():
        target = config.device_map[key]
        if not key or key in in_conflict or not paths or not isinstance(target, Device):
            continue  # a strategy for a subtree is solved on its own, whatever stands above it
        above = {
            expansion.winner(path.rpartition(".")[0]) for path in paths if expansion.anchors[path] == key
        }
        if len(above) == 1 and (other := above.pop()) is not None and config.device_map[other] == target:
            shorter = f"'{other}'" if other else 'the key ""'
            message = f"'{key}' goes to {device_name(target)}, as {shorter} says already"
            yield Report(
                message, map_path(context, key), on_key=True, help="remove it, unless it is there on purpose"
            )


RULE = Rule(
    code="DM207",
    name="redundant-key",
    severity=Severity.NOTE,
    summary="A key says what a shorter one says already",
    why=(
        "It has no effect now. It may stand there on purpose, to hold when the shorter key changes; then "
        "a comment helps the next reader."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
