"""DM112: the config that `extends` names cannot be read."""

from __future__ import annotations

from functools import partial

from devmap.findings.faults import fault_reports
from devmap.findings.model import Rule, Severity

__all__ = ["RULE"]

RULE = Rule(
    code="DM112",
    name="unreadable-parent",
    severity=Severity.ERROR,
    summary="The config that `extends` names cannot be read",
    why=(
        "Without its parent a config is not the config that somebody meant. Paths start from the folder "
        "of the file that names them."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
extends: ../no-such-base.devmap.yaml
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    check=partial(fault_reports, code="DM112"),
    suppressible=False,
)
