"""DM213 tied-head-apart: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'': 0, model.embed_tokens: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (
                    ("device_map", "model.embed_tokens"),
                    (
                        "the output head 'lm_head' is on device 0, and the embedding 'model.embed_tokens' that it is tied to on device 1; "
                        "the copy costs 262.1 MB"
                    ),
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM213")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, model.embed_tokens: 1, lm_head: 1}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM213") == ()
