"""DM602: a policy pack is wrong itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.policies import pack_faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    for policy, fault in pack_faults(context):
        yield Report(
            fault.message,
            ("policies", policy.place),
            help=fault.help or "docs/policies.md has the format",
            position=fault.position,
        )


RULE = Rule(
    code="DM602",
    name="broken-policy",
    severity=Severity.ERROR,
    summary="A policy pack is wrong itself",
    why="A pack whose YAML or JSON Schema is wrong checks nothing. The finding points into the pack.",
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: 20%
policies: [shared-server]
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 3GB}
headroom: 20%
policies: [./broken.policy.yaml]
""",
    check=_check,
)
