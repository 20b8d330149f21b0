"""DM407 everything-on-disk: what it says, where, and when it is silent."""

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
        (HEAD + "device_map: disk\nmax_memory: {disk: 2GB}\n", [(("device_map",), "all weights lie on disk: each pass reads 1.9 GB")]),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM407")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': disk, model.norm: 0}\nmax_memory: {0: 2MB, disk: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM407") == ()
