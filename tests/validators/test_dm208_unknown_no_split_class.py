"""DM208 unknown-no-split-class: what it says, where, and when it is silent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devmap.inventory.model import Inventory
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


def test_every_class_that_is_not_there_is_named_with_what_to_do(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    text = (
        HEAD + "no_split_module_classes: [GPT2Block, LlamaDecodrLayer, LlamaM, LlamaAtention, "
        "T5Block]\nmax_memory: {0: 2GB}\n"
    )
    found = findings_of(context_of(text), "DM208")
    assert [
        (finding.path[1], finding.label, finding.help, finding.edit and finding.edit.replacement)
        for finding in found
    ] == [
        (0, "", "the model's own code says LlamaDecoderLayer; leave the key out to use that", None),
        (1, "did you mean 'LlamaDecoderLayer'?", "", "LlamaDecoderLayer"),
        (2, "did you mean 'LlamaMLP'?", "", None),
        (3, "did you mean 'LlamaAttention'?", "", "LlamaAttention"),
        (4, "", "the model's own code says LlamaDecoderLayer; leave the key out to use that", None),
    ]
    for own, said in {
        (
            "LlamaDecoderLayer",
            "Head",
        ): "the model's own code says LlamaDecoderLayer, Head; leave the key out to use that",
        (): "leave it out, or name the class of the blocks",
    }.items():
        without = dataclasses.replace(example, no_split_module_classes=own)
        assert findings_of(context_of(text, inventory=without), "DM208")[0].help == said


def test_an_empty_name_is_no_class(
    context_of: ContextOf, findings_of: FindingsOf, example: Inventory
) -> None:
    nameless = dataclasses.replace(
        example, modules={path: name if path else "" for path, name in example.modules.items()}
    )
    (finding,) = findings_of(
        context_of(HEAD + "no_split_module_classes: ['']\nmax_memory: {0: 2GB}\n", inventory=nameless),
        "DM208",
    )
    assert finding.message == "no module of this model is a ''"
