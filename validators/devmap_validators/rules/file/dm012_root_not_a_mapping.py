"""DM012: the file's top level is a list or a single value."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM012",
    name="root-not-a-mapping",
    severity=Severity.ERROR,
    summary="The file's top level is a list or a single value",
    why=(
        "A config is a mapping from keys to values. A missing blank after a colon turns a whole line into "
        "one text, and so does"
        " a no-break space."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
- version: 1
- model
""",
    check=partial(fault_reports, code="DM012"),
    suppressible=False,
)
