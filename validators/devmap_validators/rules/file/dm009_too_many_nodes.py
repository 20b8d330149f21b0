"""DM009: the file becomes too large once aliases are expanded."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM009",
    name="too-many-nodes",
    severity=Severity.ERROR,
    summary="The file becomes too large once aliases are expanded",
    why="Aliases of aliases make billions of nodes from a few lines. What a config expands to is counted "
    "before it is built.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
a: &a [x, x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
e: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
""",
    check=partial(fault_reports, code="DM009"),
    suppressible=False,
)
