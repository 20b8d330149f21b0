"""DM008: collections are nested too deep."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM008",
    name="nested-too-deep",
    severity=Severity.ERROR,
    summary="Collections are nested too deep",
    why=(
        "No config nests more than a handful of levels. Thousands of brackets overflow the stack of "
        "parsers, some of which then"
        " crash the interpreter."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="version: 1\nmodel: {manifest: example.manifest.yaml}\nsame_device: " + "[" * 70 + "]" * 70 + "\n",
    check=partial(fault_reports, code="DM008"),
    suppressible=False,
)
