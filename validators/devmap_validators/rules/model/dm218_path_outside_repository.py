"""DM218: a path leads out of the repository."""

from __future__ import annotations

import os.path
from pathlib import PurePath
from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    for text, path in _paths(context):
        if text.startswith("~") or PurePath(text).is_absolute():
            message = f"{shown(text)} is an absolute path, which only this machine has"
            yield Report(
                message,
                path,
                help="keep the file in the repository, and write its path from this config's folder",
            )
        elif context.repository is not None:
            target = os.path.abspath(context.document.folder / text)  # noqa: PTH100 - resolve() would follow links
            if not PurePath(target).is_relative_to(os.path.abspath(context.repository)):  # noqa: PTH100 - as above
                message = f"{shown(text)} leads out of the repository"
                yield Report(
                    message, path, help="keep the file in the repository, so that every checkout has it"
                )


def _paths(context: Context) -> Iterator[tuple[str, DocumentPath]]:
    """Yield the files that belong beside a config; what is no text is another rule's affair."""
    document = context.document.data or {}
    model = document.get("model")
    named: list[tuple[object, DocumentPath]] = [(document.get("extends"), ("extends",))]
    components = document.get("components")
    placed: list[tuple[object, DocumentPath]] = [(model, ("model",))]
    if isinstance(components, dict):
        placed += [(source, ("components", name)) for name, source in components.items()]
    named += [
        (source.get("manifest"), (*path, "manifest")) for source, path in placed if isinstance(source, dict)
    ]
    policies = document.get("policies")
    if isinstance(policies, list):
        named += [(policy, ("policies", place)) for place, policy in enumerate(policies)]
    named.append((document.get("machine"), ("machine",)))
    yield from ((text, path) for text, path in named if isinstance(text, str))


RULE = Rule(
    code="DM218",
    name="path-outside-repository",
    severity=Severity.WARNING,
    summary="A path leads out of the repository",
    why=(
        "A config is checked in to be the same for everyone. A manifest, parent, policy or machine file "
        "that lies outside the "
        "repository, or on an absolute path, is there on one machine only. Checkpoints and offload "
        "folders may lie anywhere."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
extends: /etc/devmap/base.devmap.yaml
max_memory: {0: 2GB}
""",
    check=_check,
)
