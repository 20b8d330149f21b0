"""DM404 budget-near-capacity: what it says, where, and when it is silent."""

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
            HEAD
            + "max_memory: {0: 3.7GB, cpu: 16GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, "
            "cpu: {memory: 16GB}}}\n",
            [(("max_memory", "0"), "3.7 GB is 92% of the 4.0 GB that device 0 has")],
        ),
        (  # each device that is too full; one that nobody measured, is among them
            HEAD + "max_memory: {2: 1GB, cpu: 16GB, 0: 4GB, 1: 4GB}\nheadroom: {1: 300MB}\n"
            "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
            [
                (("max_memory", "0"), "4.0 GB is 100% of the 4.0 GB that device 0 has"),
                (("max_memory", "1"), "3.7 GB is 92% of the 4.0 GB that device 1 has"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM404")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {0: 95%}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: "
        "16GB}}}\n",
        HEAD
        + "max_memory: {0: 3.9GB}\nheadroom: 10%\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, "
        "cpu: {memory: 16GB}}}\n",
        HEAD
        # DM410's affair
        + "max_memory: {0: 5GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: "
        "16GB}}}\n",
        HEAD + "machine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: 16GB}}}\n",
        HEAD
        + "max_memory: {0: 3.6GB}\nmachine: {devices: {0: {memory: 4GB}, 1: {memory: 4GB}, cpu: {memory: "
        "16GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM404") == ()
