"""DM214: the config names no checkpoint, manifest or factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.sources import placed_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config = context.document.config
    if config is None:
        return
    for path, model in placed_sources(config):
        if model.checkpoint is None and model.manifest is None and model.factory is None:
            hint = "add 'manifest:' (devmap inspect -o writes one), 'checkpoint:' or 'factory:'"
            yield Report(
                f"'{'.'.join(map(str, path))}' names neither checkpoint, manifest nor factory",
                path,
                on_key=True,
                help=hint,
            )


RULE = Rule(
    code="DM214",
    name="no-model-source",
    severity=Severity.ERROR,
    summary="The config names no checkpoint, manifest or factory",
    why=(
        "Without one of them nothing is known of the model, and nothing of the map can be checked. A "
        "manifest is the one that "
        "CI can read: small, and checked in beside the config."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {dtype: bfloat16}
max_memory: {0: 2GB}
""",
    check=_check,
)
