"""DM406: headroom leaves nothing of a device's budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.capacity import capacity, headroom
from devmap_validators.config_map import offered_devices
from devmap_validators.wording import exact_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULE"]


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or config.headroom is None:
        return
    for device in sorted(offered_devices(context) or ()):
        total = capacity(context, device)
        kept = headroom(context, device)
        if total and kept >= total:
            message = f"headroom of {exact_bytes(kept)} leaves nothing of the {exact_bytes(total)} of device {device}"
            yield Report(message, ("headroom",), help="10% to 20% is usual")


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
