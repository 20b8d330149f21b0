"""DM303: accelerators of several kinds in one config."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import devices_named

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    first: str | None = None
    for device, path in devices_named(context):
        if device.backend is None:
            continue
        first = first or device.backend
        if device.backend != first:
            message = (
                f"'{device.backend}:{device.index}' beside '{first}' devices: one "
                "process runs on one kind of accelerator"
            )
            on_key = path[:1] != ("device_map",)
            yield Report(
                message,
                path,
                on_key=on_key,
                help="write plain indexes (0, 1) to leave the kind to the machine",
            )


RULE = Rule(
    code="DM303",
    name="mixed-backends",
    severity=Severity.ERROR,
    summary="Accelerators of several kinds in one config",
    why="`cuda:0` and `xpu:1` are devices of two builds of torch. One process runs on one kind of "
    "accelerator beside the CPU.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 'cuda:0', 'model.layers[2-3]': 'cuda:1'}
max_memory: {0: 2GB, 1: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 'cuda:0', 'model.layers[2-3]': 'xpu:1'}
max_memory: {0: 2GB, 1: 2GB}
""",
    check=_check,
)
