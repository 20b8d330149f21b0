"""DM405: a device is offered with nothing on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.config.values.size import Percent
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import device_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    for device, amount in (config.max_memory or {} if config is not None else {}).items():
        if (amount.value if isinstance(amount, Percent) else amount) == 0:
            message = f"{device_name(device)} is offered with a budget of 0"
            yield Report(
                message,
                device_path(context, ("max_memory",), device),
                help="leave the device out, or give it a size",
            )


RULE = Rule(
    code="DM405",
    name="zero-budget",
    severity=Severity.WARNING,
    summary="A device is offered with nothing on it",
    why=(
        "A budget of 0 keeps a device empty, but it still counts as offered: some strategies of other "
        "tools then place "
        "everything on the wrong device. Leaving it out says the same."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB, 1: 0}
""",
    check=_check,
)
