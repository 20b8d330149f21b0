"""DM013: an alias names no anchor, or the node that it stands in."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM013",
    name="unknown-alias",
    severity=Severity.ERROR,
    summary="An alias names no anchor, or the node that it stands in",
    why=(
        "`*name` stands for what `&name` marks earlier in the file. A glob that begins with `*` needs "
        "quotes, or YAML takes it "
        "for an alias."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: &size 2GB, 1: *size}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: *size}
""",
    check=partial(fault_reports, code="DM013"),
    suppressible=False,
)
