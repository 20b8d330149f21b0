"""DM007: a value has a tag such as `!!int` or `!Foo`."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM007",
    name="explicit-tag",
    severity=Severity.ERROR,
    summary="A value has a tag such as `!!int` or `!Foo`",
    why=(
        "A config is plain data: text, numbers, true, false, lists and mappings. Tags make loaders build "
        "objects, which is how "
        "YAML files come to run code."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: !!str 2GB}
""",
    check=partial(fault_reports, code="DM007"),
    suppressible=False,
)
