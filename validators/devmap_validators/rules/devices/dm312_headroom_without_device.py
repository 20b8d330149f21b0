"""DM312: headroom for a device that is not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path, is_offered, offered_devices
from devmap_validators.checks.wording import devices_in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, offered = context.document.config, offered_devices(context)
    if config is None or config.headroom is None or offered is None:
        return
    for device in config.headroom.devices:
        if not is_offered(context, device):
            path = device_path(context, ("headroom",), device)
            message = f"headroom for {device_name(device)}, which is not offered"
            yield Report(message, path, on_key=True, help=f"offered: {devices_in_words(offered)}")


RULE = Rule(
    code="DM312",
    name="headroom-without-device",
    severity=Severity.WARNING,
    summary="Headroom for a device that is not used",
    why=(
        "The amount is kept free on a device that holds nothing, so it has no effect: the index is wrong, "
        "or the device was "
        "taken out of `max_memory`."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: {0: 10%}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
headroom: {1: 10%}
""",
    check=_check,
)
