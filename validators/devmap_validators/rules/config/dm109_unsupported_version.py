"""DM109: the config's version is not one that this devmap reads."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM109",
    name="unsupported-version",
    severity=Severity.ERROR,
    summary="The config's version is not one that this devmap reads",
    why="`version` fixes what the other keys mean. A config of a later version may hold keys that this "
    "devmap would misread.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 2
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM109"),
    suppressible=False,
)
