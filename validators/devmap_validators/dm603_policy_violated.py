"""DM603: the config or its plan breaks a rule of a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.policies import policies_of, violations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULE"]


def _check(context: Context) -> Iterator[Report]:
    for policy in policies_of(context):
        for rule in policy.rules:
            for violation in violations(rule, context):
                message = f"{policy.name} {rule.code} {rule.name}: {violation.message}"
                yield Report(message, violation.path, help=rule.help, severity=Severity(rule.severity))


RULE = Rule(
    code="DM603",
    name="policy-violated",
    severity=Severity.ERROR,
    summary="The config or its plan breaks a rule of a policy",
    why=(
        "Policies are what a team has agreed on: no disk in production, room kept free, a lock that is fresh. `policies` names "
        "those that a config has to keep."
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
    check=_check,
)
