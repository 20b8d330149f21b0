"""DM004: the file is not YAML."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM004",
    name="invalid-yaml",
    severity=Severity.ERROR,
    summary="The file is not YAML",
    why=(
        "What cannot be parsed cannot be checked. Patterns that begin with `*`, `@` or `%` need quotes, "
        "and so does a value "
        "that holds a colon and a blank."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  '*.layers': 0
  '': auto
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
device_map:
  *.layers: 0
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM004"),
    suppressible=False,
)
