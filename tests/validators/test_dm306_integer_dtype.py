"""DM306 integer-dtype: what it says, where, and when it is silent."""

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
            "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: uint4}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("model", "dtype"), "weights cannot be converted to uint4 by a cast")],
        ),
        (
            "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: float8_e5m2}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("model", "dtype"), "a cast to float8_e5m2 loses most digits, and few kernels compute in it")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM306")] == said


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodel: {manifest: example.manifest.yaml, dtype: half}\nmax_memory: {0: 2GB, 1: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM306") == ()
