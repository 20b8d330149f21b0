"""DM208: a class in `no_split_module_classes` that the model does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devmap.config.values.words import shown, sure_word
from devmap.config.yaml.edits import rename
from devmap.findings.model import Report, Rule, Severity
from devmap_validators.checks.suggestion import near_word

if TYPE_CHECKING:
    from collections.abc import Iterator

    from devmap.findings.context import Context


def _check(context: Context) -> Iterator[Report]:
    config, inventory = context.document.config, context.inventory
    if config is None or inventory is None or config.no_split_module_classes is None:
        return
    classes = dict.fromkeys(name for name in inventory.modules.values() if name)
    for place, name in enumerate(config.no_split_module_classes):
        if name in classes:
            continue
        path = ("no_split_module_classes", place)
        near = near_word(name, [*inventory.no_split_module_classes, *classes])
        if near is not None:
            sure = sure_word(name, classes) == near
            edit = rename(context.document.position(path), name, near) if sure else None
            yield Report(
                f"no module of this model is a {shown(name)}",
                path,
                label=f"did you mean '{near}'?",
                edit=edit,
            )
            continue
        own = ", ".join(inventory.no_split_module_classes)
        hint = (
            f"the model's own code says {own}; leave the key out to use that"
            if own
            else "leave it out, or name the class of the blocks"
        )
        yield Report(f"no module of this model is a {shown(name)}", path, help=hint)


RULE = Rule(
    code="DM208",
    name="unknown-no-split-class",
    severity=Severity.ERROR,
    summary="A class in `no_split_module_classes` that the model does not have",
    why=(
        "The list protects blocks from being torn apart. A name that no module has protects nothing, and "
        "the split it should "
        "prevent happens without a word."
    ),
    good="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayer]
max_memory: {0: 2GB}
""",
    bad="""\
version: 1
model: {manifest: example.manifest.yaml}
no_split_module_classes: [LlamaDecoderLayers]
max_memory: {0: 2GB}
""",
    check=_check,
)
