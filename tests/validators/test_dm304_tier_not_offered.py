"""DM304 tier-not-offered: what it says, where, and when it is silent."""

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
            HEAD + "device_map: {'': 0, model.norm: cpu, lm_head: disk}\nmax_memory: {0: 2GB, 1: 2GB}\n",
            [
                (("device_map", "model.norm"), "cpu is used but not offered"),
                (("device_map", "lm_head"), "disk is used but not offered"),
            ],
        ),
        (
            HEAD
            + "device_map: {'': 0, lm_head: cpu, model.norm: disk}\nmachine: {devices: {0: {memory: 4GB}, "
            "disk: {memory: 9GB}}}\n",
            [
                (("device_map", "lm_head"), "cpu is used but not offered"),
                (("device_map", "model.norm"), "disk is used but not offered"),
            ],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM304")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "device_map: {'': 0, model.norm: disk}\noffload: {folder: ./offload}\nmax_memory: {0: 2GB, 1: "
        "2GB}\n",
        HEAD + "device_map: {'': 0, lm_head: cpu}\n",
        HEAD + "device_map: {'': 0, lm_head: cpu, model.norm: disk}\noffload: {folder: ./offload}\n"
        "machine: {devices: {0: {memory: 4GB}, cpu: {memory: 9GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM304") == ()
