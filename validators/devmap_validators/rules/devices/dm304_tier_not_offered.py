"""DM304: modules on cpu or disk, which the config does not offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device, Tier
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import is_offered, map_path, offered_devices
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or offered is None:
        return
    for key, target in config.device_map.items():
        if isinstance(target, Device) and not target.is_accelerator and not is_offered(context, target):
            or_folder = " or name offload.folder" if target.tier == Tier.DISK else ""
            hint = f"offered: {devices_in_words(offered)}; add '{target}: SIZE' to max_memory{or_folder}"
            yield Report(f"{target} is used but not offered", map_path(context, key), help=hint)


RULE = Rule(
    code="DM304",
    name="tier-not-offered",
    severity=Severity.ERROR,
    summary="Modules on cpu or disk, which the config does not offer",
    why=(
        "Weights go to host memory or disk only where the config says how much of it they may take. A map "
        "that puts them there "
        "without a budget would fill a machine that others use."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': cpu}
max_memory: {0: 3GB, cpu: 2GB}
workload: inference
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': cpu}
max_memory: {0: 2GB}
""",
    check=_check,
)
