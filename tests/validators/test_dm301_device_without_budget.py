"""DM301 device-without-budget: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'': 0, lm_head: 'cuda:3'}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [(("device_map", "lm_head"), "device 3 is not in max_memory")],
        ),
        (
            HEAD + "device_map: {'': 0, model.norm: 4, lm_head: 3}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (("device_map", "model.norm"), "device 4 is not in max_memory"),
                (("device_map", "lm_head"), "device 3 is not in max_memory"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM301")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, lm_head: 'cuda:1'}\nmax_memory: {0: 2GB, 1: 2GB}\n",
        HEAD + "device_map: {'': 7}\n",
        HEAD + "device_map: {'': 7}\nmachine: {devices: {0: {memory: 4GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM301") == ()
