"""DM220, DM221, DM222, DM224: what the checkpoint holds, and what the model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.config_map import quoted
from devmap_validators.checks.wording import counted, exact_bytes, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.config.yaml.faults import DocumentPath
    from devmap.findings.context import Context

__all__ = ["RULES"]


def _unmapped_tensors(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.inventory.mapping is None:
        return
    unmapped = context.inventory.mapping.unmapped
    if unmapped:
        held = context.inventory.checkpoint.tensors if context.inventory.checkpoint is not None else {}
        nbytes = sum(held[name].nbytes for name in unmapped if name in held)
        message = (
            f"the checkpoint holds {counted(len(unmapped), 'tensor')} "
            f"({exact_bytes(nbytes)}) that no part of the "
            f"model comes from: {quoted(unmapped)}"
        )
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is it the checkpoint of this model? if the model holds them, "
            "the plan is short of these bytes: "
            "devmap inspect --through-transformers tells; if it does not, ignore DM220 with the reason",
        )


DM220 = Rule(
    code="DM220",
    name="unmapped-tensors",
    severity=Severity.ERROR,
    summary="Tensors of the checkpoint that belong to no part of the model",
    why=(
        "What is stored and has no place in the inventory is counted nowhere. "
        "If the model holds it, every budget "
        "is too small by its bytes; if it does not, the checkpoint is another "
        "model's, or has an adapter or a head "
        "that is never loaded. Tensors that the model's own code ignores are not reported."
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
    check=_unmapped_tensors,
)


_MOST_GROUPS = 8


def _missing_tensors(context: Context) -> Iterator[Report]:
    inventory = context.inventory
    if inventory is None or inventory.mapping is None or not inventory.mapping.missing:
        return
    missing = inventory.mapping.missing
    # Headers alone may not tell the shape of what is absent; it is in no inventory then, and has no bytes to
    # show.
    unknown = [name for name in missing if name not in inventory.tensors]
    groups = [
        str(group) for group in fold(inventory, [name for name in missing if name in inventory.tensors])
    ]
    if unknown:
        groups.append(f"{counted(len(unknown), 'tensor')} of the model: {quoted(unknown)}")
    for group in groups[:_MOST_GROUPS]:
        message = f"the checkpoint lacks {group}"
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is a shard missing, or is it the checkpoint of another model?",
        )


DM221 = Rule(
    code="DM221",
    name="missing-tensors",
    severity=Severity.ERROR,
    summary="The checkpoint lacks tensors of the model",
    why=(
        "A model with a tensor that no file holds cannot be loaded. Loaders that fill it with random "
        "numbers give a model that "
        "runs and answers nonsense."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./with-a-missing-shard}
max_memory: {0: 2GB}
""",
    check=_missing_tensors,
)


def _incomplete_inventory(context: Context) -> Iterator[Report]:
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


DM222 = Rule(
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
    check=_incomplete_inventory,
)


def _misshapen_tensors(context: Context) -> Iterator[Report]:
    if context.inventory is None or context.inventory.mapping is None:
        return
    wrong = context.inventory.mapping.mismatched
    if wrong:
        first = wrong[0]
        others = (
            f", and {counted(len(wrong) - 1, 'other tensor')} in another shape too" if len(wrong) > 1 else ""
        )
        message = (
            f"'{first.name}' is {list(first.expected)} in the model and "
            f"{list(first.found)} in the checkpoint{others}"
        )
        yield Report(
            message,
            ("model", "checkpoint"),
            help="is it the checkpoint of this model? its config.json and its tensors disagree",
        )


DM224 = Rule(
    code="DM224",
    name="misshapen-tensors",
    severity=Severity.ERROR,
    summary="The checkpoint holds tensors of the model in another shape",
    why=(
        "The load would refuse them. The checkpoint is of another size of the model, or its vocabulary "
        "was changed and config.json was not."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {checkpoint: ./of-another-size}
max_memory: {0: 2GB}
""",
    check=_misshapen_tensors,
)


RULES = (DM220, DM221, DM222, DM224)
