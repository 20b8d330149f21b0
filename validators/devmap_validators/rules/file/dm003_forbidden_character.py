"""DM003: a control character, a byte-order mark in the middle or an odd line separator."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM003",
    name="forbidden-character",
    severity=Severity.ERROR,
    summary="A control character, a byte-order mark in the middle or an odd line separator",
    why="Such characters do not show in an editor. One of them in a module path makes a key that looks "
    "right and names nothing.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="version: 1\nmodel: {manifest: example.manifest.yaml}\nmax_memory: {0: \x002GB}\n",
    check=partial(fault_reports, code="DM003"),
    suppressible=False,
)
