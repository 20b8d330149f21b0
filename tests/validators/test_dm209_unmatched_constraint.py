"""DM209 unmatched-constraint: what it says, where, and when it is silent."""

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
            HEAD + "forbid: {1: [lm_head, norm]}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("forbid", "1", 1), "'norm' in forbid is no module of this model")],
        ),
        (
            HEAD + "same_device: [[model.norm, lm_heads]]\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("same_device", 0, 1), "'lm_heads' in same_device is no module of this model")],
        ),
        (
            HEAD + "forbid: {1: ['model.layers[4-5]']}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("forbid", "1", 0), "'model.layers[4-5]' in forbid is no module of this model")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM209")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "forbid: {1: ['model.layers[0-1]']}\nsame_device: [[model.norm, lm_head]]\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM209") == ()
