"""DM104: a size has no unit that is known, or an ambiguous one."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM104",
    name="invalid-size",
    severity=Severity.ERROR,
    summary="A size has no unit that is known, or an ambiguous one",
    why=(
        "`GB` is 10^9 bytes and `GiB` 2^30. A lower-case final `b` is refused: `8gb` is 8 gigabytes to "
        "most people and 8 "
        "gigabits, an eighth of that, to accelerate."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 8gb}
""",
    check=partial(fault_reports, code="DM104"),
    suppressible=False,
)
