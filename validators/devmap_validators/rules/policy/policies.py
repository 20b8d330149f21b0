"""DM601 to DM603: policies, and what breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown, sure_word
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.policies import (
    BUILT_IN_POLICIES,
    pack_faults,
    part_of_policy,
    policies_of,
    policy_file,
)
from devmap_validators.checks.suggestion import near_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULES"]


def _unknown_policy(context: Context) -> Iterator[Report]:
    config = context.document.config
    for place, name in enumerate(config.policies if config is not None else ()):
        if policy_file(name, context.document.folder) is None:
            near = near_word(name, BUILT_IN_POLICIES)
            hint = (
                f"built in: {', '.join(BUILT_IN_POLICIES)}; a pack of your own "
                "is a path such as ./policies/team.yaml"
            )
            path = ("policies", place)
            edit = (
                rename(context.document.position(path), name, near)
                if near and sure_word(name, BUILT_IN_POLICIES) == near
                else None
            )
            yield Report(
                f"there is no policy {shown(name)}",
                path,
                label=f"did you mean '{near}'?" if near else "",
                help=hint,
                edit=edit,
            )


DM601 = Rule(
    code="DM601",
    name="unknown-policy",
    severity=Severity.ERROR,
    summary="A policy that is neither built in nor a file",
    why="A misspelt policy checks nothing, and everybody believes that it does.",
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
policies: [shared-servers]
""",
    check=_unknown_policy,
)


def _broken_policy(context: Context) -> Iterator[Report]:
    for policy, fault in pack_faults(context):
        yield Report(
            fault.message,
            ("policies", policy.place),
            help=fault.help or "docs/policies.md has the format",
            position=fault.position,
        )


DM602 = Rule(
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
    check=_broken_policy,
)


def _parts(context: Context) -> tuple[Rule, ...]:
    return tuple(
        part_of_policy(rule, policy, DM603) for policy in policies_of(context) for rule in policy.rules
    )


def _said_by_the_parts(_context: Context) -> tuple[Report, ...]:
    return ()


DM603 = Rule(
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


RULES = (DM601, DM602, DM603)
