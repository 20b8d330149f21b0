"""DM402 over-budget-map: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'': auto, 'model.layers[0-2]': cpu}\nmax_memory: {0: 2GB, cpu: 1GB}\n",
            [(("device_map", "model.layers[0-2]"), "cpu is given 1.2 GB of weights and may hold 1.0 GB: 214.3 MB too much")],
        ),
        (
            HEAD + "device_map: {'': 0}\nmax_memory: {0: 2GB}\nheadroom: 10%\n",
            [(("device_map", ""), "device 0 is given 1.9 GB of weights and may hold 1.8 GB: 81.2 MB too much")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM402")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': auto, 'model.layers[0-1]': cpu}\nmax_memory: {0: 2GB, cpu: 1GB}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM402") == ()
