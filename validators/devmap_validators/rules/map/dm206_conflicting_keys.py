"""DM206: two equally exact keys give the same module different devices."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import map_path
from devmap_validators.checks.groups import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, expansion = context.document.config, context.expansion
    if config is None or expansion is None:
        return
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, first, second in expansion.conflicts:
        if (
            expansion.anchors[path] in {first, second}
            and config.device_map[first] != config.device_map[second]
        ):
            paths[first, second].append(path)
    for (first, second), named in paths.items():
        more = f" and {counted(len(named) - 1, 'other path')}" if len(named) > 1 else ""
        here, there = device_name(config.device_map[second]), device_name(config.device_map[first])
        message = f"'{second}' puts '{named[0]}'{more} on {here}, and '{first}' puts it on {there}"
        yield Report(
            message,
            map_path(context, second),
            on_key=True,
            help="make one of them narrower, or name the module itself",
        )


RULE = Rule(
    code="DM206",
    name="conflicting-keys",
    severity=Severity.ERROR,
    summary="Two equally exact keys give the same module different devices",
    why=(
        "Two ranges or two globs that overlap are equally exact, so nothing but their order in the file "
        "would decide. A plain "
        "path beats a range, and a range beats a glob."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-1]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-2]': 0, 'model.layers[2-3]': 1, '': 0}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
