"""DM408 needless-spill: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'': 0, 'model.layers[2-3]': disk}\nmax_memory: {0: 3GB, disk: 2GB}\n",
            [(("device_map", "model.layers[2-3]"), "809.5 MB go to disk, and device 0 has 1.9 GB free")],
        ),
        (  # the room is what the map leaves after headroom, on the first device that has enough
            HEAD
            + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 1.5GB, 1: 1GB, cpu: 2GB}\nheadroom: {0: 10%, 1: 100MB}\n",
            [(("device_map", "model.layers[2-3]"), "809.5 MB go to cpu, and device 1 has 900.0 MB free")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM408")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 1.2GB, cpu: 2GB}\n",
        HEAD + "device_map: {'': 0, 'model.layers[2-3]': cpu}\nmax_memory: {0: 3GB, cpu: 2GB}\nworkload: inference\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM408") == ()
