"""DM307 percent-without-machine: what it says, where, and when it is silent."""

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
            HEAD + "max_memory: {0: 90%, 1: 2GB}\n",
            [
                (
                    ("max_memory", "0"),
                    "90% of device 0 cannot be checked: no machine says how much memory it has",
                )
            ],
        ),
        (
            HEAD + "max_memory: {0: 90%, disk: 50%}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, "
            "cpu: {memory: 16GB}}}\n",
            [
                (
                    ("max_memory", "disk"),
                    "50% of disk cannot be checked: no machine says how much memory it has",
                )
            ],
        ),
        (
            HEAD + "max_memory: {7: 50%, 0: 90%, disk: 50%, cpu: 10%}\n"
            "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
            [
                (
                    ("max_memory", "disk"),
                    "50% of disk cannot be checked: no machine says how much memory it has",
                )
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM307")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 90%, cpu: 50%}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: "
        "{memory: 16GB}}}\n",
        HEAD + "max_memory: {0: 90%}\nmachine: 9x9999\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM307") == ()
