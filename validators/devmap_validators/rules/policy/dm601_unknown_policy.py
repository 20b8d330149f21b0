"""DM601: a policy that is no built-in one and no file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown, sure_word
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.policies import BUILT_IN_POLICIES, policy_file
from devmap_validators.checks.suggestion import near_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
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


RULE = Rule(
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
    check=_check,
)
