"""DM301: an accelerator that `max_memory` does not offer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import Device
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import is_offered, map_path, offered_devices
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or config.max_memory is None or offered is None:
        return
    for key, target in config.device_map.items():
        if isinstance(target, Device) and target.is_accelerator and not is_offered(context, target):
            hint = (
                f"offered: {devices_in_words(offered)}; add '{target}: SIZE' to "
                "max_memory, or choose another device"
            )
            yield Report(f"device {target} is not in max_memory", map_path(context, key), help=hint)


RULE = Rule(
    code="DM301",
    name="device-without-budget",
    severity=Severity.ERROR,
    summary="An accelerator that `max_memory` does not offer",
    why=(
        "`max_memory` names the devices that may be used. A module that is put on another one has no "
        "budget to be checked "
        "against, and on a machine with fewer devices the load fails."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0, 'model.layers[2-3]': 1}
max_memory: {0: 2GB}
""",
    check=_check,
)
