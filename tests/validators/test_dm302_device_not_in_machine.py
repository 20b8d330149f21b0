"""DM302 device-not-in-machine: what it says, where, and when it is silent."""

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
            HEAD + "max_memory: {0: 2GB, 'cuda:4': 2GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
            [(("max_memory", "cuda:4"), "the machine has no device 4")],
        ),
        (
            HEAD + "device_map: {'': 3}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
            [(("device_map", ""), "the machine has no device 3")],
        ),
        (
            HEAD + "forbid: {6: [lm_head]}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
            [(("forbid", "6"), "the machine has no device 6")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM302")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 1}\nmax_memory: {1: 2GB, disk: 2GB}\n"
        "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM302") == ()
