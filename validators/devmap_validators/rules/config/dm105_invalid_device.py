"""DM105: a value or key that names no device."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM105",
    name="invalid-device",
    severity=Severity.ERROR,
    summary="A value or key that names no device",
    why=(
        "Devices are an index such as 0, `cpu`, `disk`, or a torch device such as `cuda:0`. Anything else "
        "would fail when the "
        "model is loaded, minutes later."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': 0}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'': gpu0!}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM105"),
    suppressible=False,
)
