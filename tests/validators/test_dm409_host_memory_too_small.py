"""DM409 host-memory-too-small: what it says, where, and when it is silent."""

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
            HEAD + "offload: {host_memory: 500MB}\nmax_memory: {0: 1.5GB, disk: 2GB}\n",
            [(("offload", "host_memory"), "host_memory is 500.0 MB, and 'model.layers.1' alone is read from disk with 404.8 MB")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM409")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "offload: {host_memory: 810MB}\nmax_memory: {0: 1.5GB, disk: 2GB}\n",
        HEAD + "offload: {host_memory: 5MB}\nmax_memory: {0: 2GB, disk: 2GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM409") == ()
