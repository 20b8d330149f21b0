"""DM219: only a factory describes the model, and code may not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import placed_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None or context.allow_code:
        return
    for path, model in placed_sources(config):
        if model.factory is not None and model.manifest is None and model.checkpoint is None:
            message = f"the factory {shown(model.factory)} was not run, so nothing is known of the model"
            yield Report(
                message,
                (*path, "factory"),
                help="add a manifest (devmap inspect -o), or pass --allow-code if you trust the code",
            )


RULE = Rule(
    code="DM219",
    name="factory-needs-code",
    severity=Severity.ERROR,
    summary="Only a factory describes the model, and code may not run",
    why=(
        "A factory is code of the repository that a checker would have to run. No command does that "
        "unasked: a pull request "
        "could change the code. A manifest beside it makes the config checkable everywhere."
    ),
    good="""\
version: 1
model: {factory: 'mypackage.models:build', manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {factory: 'mypackage.models:build'}
max_memory: {0: 2GB}
""",
    check=_check,
)
