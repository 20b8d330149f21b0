"""DM205: a key of the device map never decides anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import map_path, quoted, runs_by_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    deciding = runs_by_key(context)
    for key, paths in expansion.paths.items():
        if not key or not paths or key in deciding:
            continue  # "" is for what the others leave; that they leave nothing is no fault
        inside = tuple(f"{path}." for path in paths)
        nearer = [
            other
            for other, named in expansion.paths.items()
            if other != key
            and other in deciding
            and any(path in paths or path.startswith(inside) for path in named)
        ]
        message = (
            f"'{key}' has no effect: {quoted(nearer)} {'covers' if len(nearer) == 1 else 'cover'} "
            "everything below it"
        )
        yield Report(
            message, map_path(context, key), on_key=True, help="remove it, or make the other keys narrower"
        )


RULE = Rule(
    code="DM205",
    name="shadowed-key",
    severity=Severity.WARNING,
    summary="A key of the device map never decides anything",
    why=(
        "Every tensor below it is named by a longer or more exact key, so it can be changed or removed "
        "without any effect. "
        "Mostly it is left over, or one of the others is wider than meant."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers.0': 0, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  'model.layers.0': 1
  model.layers.0.self_attn: 0
  model.layers.0.mlp: 0
  'model.layers.0.*norm': 0
  '': 0
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
