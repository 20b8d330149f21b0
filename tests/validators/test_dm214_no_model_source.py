"""DM214 no-model-source: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 1\nmodel: {dtype: float16}\n",
            [(("model",), "'model' names neither checkpoint, manifest nor factory")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM214")] == said


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodel: {factory: 'a.b:c'}\n",
        "version: 1\nmodel: {checkpoint: ./weights}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM214") == ()
