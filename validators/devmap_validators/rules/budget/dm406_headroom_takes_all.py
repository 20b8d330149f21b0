"""DM406: headroom leaves nothing of a device's budget."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.capacity import capacity, headroom
from devmap_validators.checks.config_map import device_path, offered_devices
from devmap_validators.checks.wording import devices_in_words, exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.values.device import Device
    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.headroom is None:
        return
    eaten: dict[DocumentPath, list[Device]] = defaultdict(list)
    for device in sorted(offered_devices(context) or ()):
        budget = capacity(context, device)
        if budget and headroom(context, device) >= budget:
            eaten[device_path(context, ("headroom",), device)].append(device)
    for path, devices in eaten.items():
        first = devices[0]
        more = f", nor of {devices_in_words(devices[1:])}" if len(devices) > 1 else ""
        kept, total = exact_bytes(headroom(context, first)), exact_bytes(capacity(context, first) or 0)
        message = f"headroom of {kept} leaves nothing of the {total} of {device_name(first)}{more}"
        yield Report(message, path, help="10% to 20% is usual")


RULE = Rule(
    code="DM406",
    name="headroom-takes-all",
    severity=Severity.ERROR,
    summary="Headroom leaves nothing of a device's budget",
    why="What stays free is as large as what the device may hold, so no weight can be placed there.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: 10%
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
headroom: 100%
""",
    check=_check,
)
