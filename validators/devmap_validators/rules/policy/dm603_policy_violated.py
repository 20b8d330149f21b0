"""DM603: the config or its plan breaks a rule of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.policies import part_of_policy, policies_of

if TYPE_CHECKING:
    from devmap.findings.context import Context


def _parts(context: Context) -> tuple[Rule, ...]:
    return tuple(
        part_of_policy(rule, policy, RULE) for policy in policies_of(context) for rule in policy.rules
    )


def _said_by_the_parts(_context: Context) -> tuple[Report, ...]:
    return ()


RULE = Rule(
    code="DM603",
    name="policy-violated",
    severity=Severity.ERROR,
    summary="The config or its plan breaks a rule of a policy",
    why=(
        "Policies are what a team has agreed on: no disk in production, room kept free, a lock that is "
        "fresh. `policies` names "
        "those that a config has to keep. Each of their rules has a code of its own (`PRD001`), by which "
        "it is selected, ignored and "
        "suppressed; `DM603` and `policy-violated` name them all."
    ),
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
policies: [shared-server]
""",
    check=_said_by_the_parts,
    parts=_parts,
)
