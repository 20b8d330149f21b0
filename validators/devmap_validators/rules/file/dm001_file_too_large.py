"""DM001: the file is larger than a config may be."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM001",
    name="file-too-large",
    severity=Severity.ERROR,
    summary="The file is larger than a config may be",
    why=(
        "A config of a whole cluster has a few kilobytes. A file of a megabyte is something else: a "
        "checkpoint's index, a log, "
        "or an attempt to keep the checker busy. It is refused before it is parsed. The limit `size` of "
        "`[tool.devmap.limits]` "
        "raises it."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="version: 1\nmodel: {manifest: example.manifest.yaml}\n# " + "x" * (1 << 20) + "\n",
    check=partial(fault_reports, code="DM001"),
    suppressible=False,
)
