"""DM309 no-accelerator: what it says, where, and when it is silent."""

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
            HEAD + "max_memory: {cpu: 2GB, disk: 2GB}\n",
            [(("max_memory",), "only cpu and disk are offered: the model runs on the CPU")],
        ),
        (
            HEAD + "machine: {devices: {cpu: {memory: 9GB}, disk: {memory: 9GB}}}\n",
            [(("machine",), "only cpu is offered: the model runs on the CPU")],
        ),
    ],
)
def test_it_says_what_is_wrong_and_where(
    text: str, said: list[tuple[DocumentPath, str]], context_of: ContextOf, findings_of: FindingsOf
) -> None:
    assert [(finding.path, finding.message) for finding in findings_of(context_of(text), "DM309")] == said


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "max_memory: {1: 2GB}\n",
        HEAD + "device_map: auto\n",
        HEAD + "machine: {devices: {0: {memory: 4GB}, cpu: {memory: 9GB}}}\n",
    ],
)
def test_it_is_silent(text: str, context_of: ContextOf, findings_of: FindingsOf) -> None:
    assert findings_of(context_of(text), "DM309") == ()
