"""DM305 upcast: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float64}\nmax_memory: {0: 20GB}\n",
            [(("model", "dtype"), "float64 makes 7.5 GB of 1.9 GB: the weights are stored as bfloat16")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM305")] == said


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float16}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM305") == ()
