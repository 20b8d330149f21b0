"""DM101: a key that configs do not have."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM101",
    name="unknown-key",
    severity=Severity.ERROR,
    summary="A key that configs do not have",
    why=(
        "A misspelt key would be ignored, and the config would do something else than it says. The "
        "message names the key that "
        "was probably meant."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memry: {0: 2GB}
""",
    check=partial(fault_reports, code="DM101"),
    suppressible=False,
)
