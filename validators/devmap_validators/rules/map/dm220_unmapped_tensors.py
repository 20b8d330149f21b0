"""DM220: tensors of the checkpoint that belong to no part of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.groups import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context

__all__ = ["RULE"]


def _check(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.inventory.mapping is None:
        return
    unmapped = context.inventory.mapping.unmapped
    if unmapped:
        message = f"the checkpoint holds {counted(len(unmapped), 'tensor')} that no part of the model comes from: {quoted(unmapped)}"
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is it the checkpoint of this model? devmap inspect shows what it holds",
        )


RULE = Rule(
    code="DM220",
    name="unmapped-tensors",
    severity=Severity.WARNING,
    summary="Tensors of the checkpoint that belong to no part of the model",
    why=(
        "Weights that nothing loads are read for nothing, or the model is another than its checkpoint: an "
        "adapter, a head for "
        "another task, a renamed module."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./with-an-extra-head}
max_memory: {0: 2GB}
""",
    check=_check,
)
