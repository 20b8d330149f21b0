"""DM223: a profile changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.profile is not None:  # a config that a profile was merged into says what that profile says
        return
    document = context.document.data
    profiles = document.get("profiles") if document is not None else None
    if not isinstance(profiles, dict):
        return
    for name, changes in profiles.items():
        if changes == {} or (isinstance(changes, dict) and _says_already(document, changes)):
            what = "is empty" if changes == {} else "changes nothing: the config says the same"
            yield Report(
                f"the profile {shown(name)} {what}",
                ("profiles", name),
                on_key=True,
                help="give it a change, or remove it",
            )


def _says_already(config: object, changes: object) -> bool:
    """Return whether merging `changes` into `config` leaves it as it is."""
    if isinstance(changes, dict):
        return isinstance(config, dict) and all(
            key in config and _says_already(config[key], value) for key, value in changes.items()
        )
    return type(config) is type(changes) and config == changes


RULE = Rule(
    code="DM223",
    name="profile-without-effect",
    severity=Severity.WARNING,
    summary="A profile changes nothing",
    why=(
        "A profile exists to change the config. One that changes nothing: "
        "the config says the same, or nothing, "
        "was left over or has "
        "its change in the wrong place."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {0: 1GB}}}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
profiles: {laptop: {max_memory: {0: 2GB}}}
""",
    check=_check,
)
