"""DM208 unknown-no-split-class: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "no_split_module_classes: [LlamaDecoderLayer, llamamlp]\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("no_split_module_classes", 1), "no module of this model is a 'llamamlp'")],
        ),
        (
            HEAD + "no_split_module_classes: [GPT2Block]\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("no_split_module_classes", 0), "no module of this model is a 'GPT2Block'")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM208")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "no_split_module_classes: [LlamaMLP]\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "no_split_module_classes: []\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM208") == ()
