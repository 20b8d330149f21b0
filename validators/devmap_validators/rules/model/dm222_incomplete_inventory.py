"""DM222: something about the model could not be known from its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.document.config is None:
        return
    hint = (
        "`devmap validate --through-transformers` asks Transformers once; or name the blocks in "
        "no_split_module_classes, or write a manifest from the live model (devmap inspect)"
    )
    config = context.document.config
    for note in context.inventory.notes:
        # Notes of components begin with their names.
        name = note.partition(": ")[0]
        path: DocumentPath = ("components", name) if name in config.components else ("model",)
        source = config.components.get(name, config.model)
        yield Report(note, (*path, "manifest" if source.manifest is not None else "checkpoint"), help=hint)


RULE = Rule(
    code="DM222",
    name="incomplete-inventory",
    severity=Severity.NOTE,
    summary="Something about the model could not be known from its files",
    why=(
        "Headers name tensors, not classes. Where no table and no library knows the architecture, blocks "
        "that must stay whole "
        "and buffers that no file holds are unknown, and a plan is only as good as what is known."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./own-architecture}
max_memory: {0: 2GB}
""",
    check=_check,
)
