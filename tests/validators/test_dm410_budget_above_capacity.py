"""DM410 budget-above-capacity: what it says, where, and when it is silent."""

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
            HEAD + "max_memory: {0: 5GB, cpu: 17GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, "
            "cpu: {memory: 16GB}}}\n",
            [
                (("max_memory", "0"), "device 0 has 4.0 GB, and max_memory gives it 5.0 GB"),
                (("max_memory", "cpu"), "cpu has 16.0 GB, and max_memory gives it 17.0 GB"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM410")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 3.5GB, cpu: 16GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, "
        "cpu: {memory: 16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM410") == ()
