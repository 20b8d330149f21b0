"""DM311 unused-accelerators: what it says, where, and when it is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devmap.config.yaml.faults import DocumentPath
    from tests.validators.conftest import ContextOf, FindingsOf

HEAD = "version: 1\nmodel: {manifest: example.manifest.yaml}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            HEAD + "max_memory: {1: 2GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: "
            "{memory: 16GB}}}\n",
            [(("max_memory",), "the machine also has device 0, which max_memory does not offer")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM311")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 1GB, 1: 1GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: "
        "{memory: 16GB}}}\n",
        HEAD + "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
        HEAD + "max_memory: {0: 1GB, 1: 1GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, disk: "
        "{memory: 16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM311") == ()
