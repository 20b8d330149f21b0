"""DM402: the device map puts more on a device than it may hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.device import device_name
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import map_path
from devmap_validators.checks.pins import pins_over_budget
from devmap_validators.checks.wording import over_budget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    for pin in pins_over_budget(context):
        keys = ", ".join(f"'{key}'" if key else '""' for key in pin.keys[:3])
        there = f"put{'s' if len(pin.keys) == 1 else ''} it there"
        hint = f"{keys} {there}: move modules away, or raise max_memory of {device_name(pin.device)}"
        yield Report(
            over_budget(pin.device, pin.used_bytes, pin.budget_bytes),
            map_path(context, pin.keys[0]),
            help=hint,
        )


RULE = Rule(
    code="DM402",
    name="over-budget-map",
    severity=Severity.ERROR,
    summary="The device map puts more on a device than it may hold",
    why=(
        "The weights that the map itself pins, without any that a strategy adds, are more than the "
        "device's budget after its "
        "headroom. No strategy can mend that."
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
max_memory: {0: 2GB, 1: 400MB}
""",
    check=_check,
)
