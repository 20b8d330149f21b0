"""DM108: a key of the device map that is no path, range or glob."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM108",
    name="invalid-map-key",
    severity=Severity.ERROR,
    summary="A key of the device map that is no path, range or glob",
    why=(
        "Keys are names joined by dots, with ranges such as `model.layers[0-3]` and globs such as "
        "`model.layers.*.mlp`. Blanks,"
        " empty segments and ranges that run backwards name nothing."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[0-3]': 0, '': auto}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map: {'model.layers[3-0]': 0, '': auto}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM108"),
    suppressible=False,
)
